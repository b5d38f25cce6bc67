//! A vector as a value: what it lays down and what it expects. Knows neither the form of the files
//! nor what any of it means.

/// One file of vectors.
pub(super) struct Family {
    /// Of its file, without the extension.
    pub(super) name: &'static str,
    /// What is told about it, one line each.
    pub(super) about: &'static [&'static str],
    pub(super) vectors: Vec<Vector>,
}

/// One image and what is expected of it.
pub(super) struct Vector {
    pub(super) name: String,
    pub(super) clauses: Vec<&'static str>,
    pub(super) what: String,
    pub(super) file_len: u64,
    pub(super) header: Header,
    pub(super) runs: Vec<Run>,
    pub(super) expect: Expect,
    pub(super) qemu: Option<Qemu>,
}

/// The fields of the header.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) cluster_size: u64,
    pub(super) table_size: u64,
    pub(super) header_size: u64,
    pub(super) features: u64,
    pub(super) compat_features: u64,
    pub(super) autoclear_features: u64,
    pub(super) l1_table_offset: u64,
    pub(super) image_size: u64,
    pub(super) backing_filename_offset: u64,
    pub(super) backing_filename_size: u64,
}

/// Bytes at a place.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) at: u64,
    pub(super) bytes: Bytes,
}

#[derive(Clone)]
pub(super) enum Bytes {
    Text(String),
    Hex(Vec<u8>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Fill {
        byte: u8,
        len: u64,
    },
    /// So many that cannot be read.
    Fails(u64),
}

/// An answer: it opens, or it does not by a clause.
pub(super) type Opening = Result<(), &'static str>;

pub(super) struct Expect {
    pub(super) open: Opening,
    /// As `open` where it is none.
    pub(super) write: Option<Opening>,
    pub(super) size: Option<u64>,
    pub(super) cluster_size: Option<u64>,
    pub(super) map: Option<Map>,
    pub(super) content: Vec<Run>,
    pub(super) check: Option<&'static str>,
    pub(super) findings: Option<Vec<u16>>,
    pub(super) after_write: Vec<Run>,
    pub(super) superblock: Option<Superblock>,
}

/// The mapping of a whole disk.
pub(super) enum Map {
    Runs(Vec<MapRun>),
    Fails,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapRun {
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data(u64),
    Zero,
    Unallocated,
}

/// The current copy by its letter or what is in its place, and its generation.
#[derive(Clone, Copy)]
pub(super) struct Superblock {
    pub(super) current: &'static str,
    pub(super) generation: Option<u64>,
}

/// What QEMU answers otherwise: keys and the values that stand there.
pub(super) struct Qemu {
    pub(super) why: &'static str,
    pub(super) answers: Vec<(&'static str, &'static str)>,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            cluster_size: 65536,
            table_size: 4,
            header_size: 1,
            features: 0,
            compat_features: 0,
            autoclear_features: 0,
            l1_table_offset: 65536,
            image_size: 1 << 20,
            backing_filename_offset: 0,
            backing_filename_size: 0,
        }
    }
}

impl Run {
    pub(super) fn u64(at: u64, number: u64) -> Self {
        Self { at, bytes: Bytes::U64(vec![number]) }
    }

    pub(super) fn fill(at: u64, byte: u8, len: u64) -> Self {
        Self { at, bytes: Bytes::Fill { byte, len } }
    }
}

impl Expect {
    /// It opens, and nothing else is asked.
    pub(super) fn accept() -> Self {
        Self::of(Ok(()))
    }

    /// It is refused by a clause.
    pub(super) fn reject(clause: &'static str) -> Self {
        Self::of(Err(clause))
    }

    pub(super) fn of(open: Opening) -> Self {
        Self {
            open,
            write: None,
            size: None,
            cluster_size: None,
            map: None,
            content: Vec::new(),
            check: None,
            findings: None,
            after_write: Vec::new(),
            superblock: None,
        }
    }
}

impl Qemu {
    /// It answers one question otherwise.
    pub(super) fn answers(key: &'static str, value: &'static str, why: &'static str) -> Self {
        Self { why, answers: vec![(key, value)] }
    }

    /// It refuses what is to be opened.
    pub(super) fn refuses(why: &'static str) -> Self {
        Self { why, answers: vec![("open", "reject"), ("check", "refused")] }
    }
}
