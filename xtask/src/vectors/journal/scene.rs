//! An image in journal mode as a close or a crash left it: a table with one data cluster, a second
//! cluster that nothing names, a superblock and the blocks of a ring. Owns how they are laid, and
//! what is seen of the image when its tables are as they are told.

use crate::vectors::crc::crc32c;
use crate::vectors::vector::{Bytes, Expect, Header, Kind, Map, MapRun, Qemu, Run, Vector};

/// Bytes of a cluster.
pub(super) const CLUSTER: u64 = 0x1_0000;
/// JOURNAL_ACTIVE of features.
pub(super) const ACTIVE: u64 = 1 << 32;
/// JOURNAL of autoclear_features.
pub(super) const JOURNAL: u64 = 1 << 35;
/// TABLE_DIRTY of autoclear_features.
pub(super) const TABLE_DIRTY: u64 = 1 << 32;

/// The tables of an image with a header area of one cluster: the L1 table, the L2 table that its
/// slot 0 names, the data cluster that entry 0 of that names, and the last cluster of the file.
pub(super) const L1: u64 = CLUSTER;
pub(super) const L2: u64 = 5 * CLUSTER;
pub(super) const DATA: u64 = 9 * CLUSTER;
pub(super) const SPARE: u64 = 10 * CLUSTER;
/// Clusters of the file.
pub(super) const SIZE: u64 = 11;

/// What lies in the two clusters.
const BYTES: [(u64, u8); 2] = [(DATA, 0xa1), (SPARE, 0xb2)];
/// Clusters of the virtual disk.
const GUEST_CLUSTERS: u64 = 16;

/// Where a superblock lies, and its identity.
pub(super) const A: u64 = 0x2000;
pub(super) const B: u64 = 0x3000;
const UUID: [u8; 16] = *b"\x10\x21\x32\x43\x54\x65\x76\x87\x98\xa9\xba\xcb\xdc\xed\xfe\x0f";
const EPOCH: u64 = 0x0123_4567_89ab_cdef;

/// The section JOURNAL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) tail: u64,
    pub(super) stable: u64,
}

/// A copy of the superblock.
#[derive(Clone)]
pub(super) struct Superblock {
    pub(super) at: u64,
    pub(super) generation: u64,
    /// Types and payloads.
    pub(super) sections: Vec<(u32, Bytes)>,
}

/// A block of the ring. Its checksum is right, and follows from all that is here.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) magic: &'static str,
    pub(super) version: u32,
    /// Bits of the checksum and of that of the block before that are flipped.
    pub(super) wrong: u32,
    pub(super) wrong_previous: u32,
    pub(super) sequence: u64,
    pub(super) stable: u64,
    pub(super) generation: u64,
    pub(super) physical_size: u64,
    pub(super) index: u32,
    pub(super) count: u32,
    /// As many as there are records, if it is not given.
    pub(super) used: Option<u32>,
    pub(super) reserved: u32,
    pub(super) records: Vec<Record>,
    /// A byte behind the records that is not zero.
    pub(super) behind: Option<u64>,
    pub(super) uuid: [u8; 16],
    pub(super) epoch: u64,
    /// The place in the ring, where it is not that of the sequence.
    pub(super) place: Option<u64>,
}

/// Kind, count, at and value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record(pub(super) u32, pub(super) u32, pub(super) u64, pub(super) u64);

/// The image.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) header: Header,
    pub(super) file_len: u64,
    pub(super) ring: Ring,
    /// Of the superblock, behind MODE and before or behind JOURNAL.
    pub(super) sections: Vec<(u32, Bytes)>,
    pub(super) generation: u64,
    pub(super) older: Option<Superblock>,
    pub(super) blocks: Vec<Block>,
    pub(super) more: Vec<Run>,
    /// The tables are left to `more`.
    pub(super) is_bare: bool,
}

/// What the tables say: the slots of the L2 table that are not 0, and their values.
pub(super) type Entries = [(u64, u64)];

/// The tables as they lie in the file.
pub(super) const AS_LAID: &Entries = &[(0, DATA)];
/// The tables after a commit of [`spare_at`] slot 1.
pub(super) const BOTH: &Entries = &[(0, DATA), (1, SPARE)];

/// The record that gives the spare cluster to a guest cluster.
pub(super) fn spare_at(slot: u64) -> Record {
    Record(2, 1, L2 + 8 * slot, SPARE)
}

impl Ring {
    /// 8 blocks behind the superblocks, the first one to come next.
    pub(super) const EMPTY: Self = Self { at: 0x4000, len: 0x8000, tail: 1, stable: 0 };

    pub(super) fn payload(self) -> Bytes {
        Bytes::U64(vec![self.at, self.len, self.tail, self.stable])
    }
}

impl Block {
    /// A commit of one block.
    pub(super) fn single(sequence: u64, records: &[Record]) -> Self {
        Self {
            magic: "QEDJ",
            version: 1,
            wrong: 0,
            wrong_previous: 0,
            sequence,
            stable: sequence - 1,
            generation: 1,
            physical_size: SIZE,
            index: 0,
            count: 1,
            used: None,
            reserved: 0,
            records: records.to_vec(),
            behind: None,
            uuid: UUID,
            epoch: EPOCH,
            place: None,
        }
    }

    /// A commit of blocks that have one record each.
    pub(super) fn commit(first: u64, records: &[Record]) -> Vec<Self> {
        let count = u32::try_from(records.len()).expect("a few blocks");
        let block = |(index, record): (u32, &Record)| Self {
            stable: first - 1,
            index,
            count,
            ..Self::single(first + u64::from(index), &[*record])
        };
        (0..).zip(records).map(block).collect()
    }

    fn used(&self) -> u32 {
        self.used.unwrap_or(24 * u32::try_from(self.records.len()).expect("a few records"))
    }

    /// Offsets in the block and what stands there; the checksum and that of the block before are
    /// given.
    fn runs(&self, crc: u32, previous: u32) -> Vec<Run> {
        let Self { sequence, stable, generation, physical_size, .. } = *self;
        let mut runs = vec![
            Run { at: 0, bytes: Bytes::Text(self.magic.to_owned()) },
            Run { at: 4, bytes: Bytes::U32(vec![self.version, crc, previous]) },
            Run { at: 16, bytes: Bytes::U64(vec![sequence, stable, generation, physical_size]) },
            Run {
                at: 48,
                bytes: Bytes::U32(vec![self.index, self.count, self.used(), self.reserved]),
            },
        ];
        for (at, Record(kind, count, place, value)) in (64..).step_by(24).zip(&self.records) {
            runs.push(Run { at, bytes: Bytes::U32(vec![*kind, *count]) });
            runs.push(Run { at: at + 8, bytes: Bytes::U64(vec![*place, *value]) });
        }
        runs.extend(self.behind.map(|at| Run { at, bytes: Bytes::Hex(vec![1]) }));
        runs
    }

    fn crc(&self, previous: u32) -> u32 {
        let mut bytes = self.uuid.to_vec();
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(flat(&self.runs(0, previous)));
        crc32c(&bytes) ^ self.wrong
    }
}

impl Superblock {
    fn runs(&self, crc: u32) -> Vec<Run> {
        let mut sections = Vec::new();
        let mut at = 48;
        for (kind, payload) in &self.sections {
            let len = u64::try_from(bytes_of(payload).len()).expect("short");
            let head = vec![*kind, u32::try_from(len).expect("short")];
            sections.push(Run { at, bytes: Bytes::U32(head) });
            if len > 0 {
                sections.push(Run { at: at + 8, bytes: payload.clone() });
            }
            at += 8 + len.next_multiple_of(8);
        }
        let len = u32::try_from(at - 48).expect("short");
        let mut runs = vec![
            Run { at: 0, bytes: Bytes::Text("QEDX".to_owned()) },
            Run { at: 4, bytes: Bytes::U32(vec![1, crc, len]) },
            Run::u64(16, self.generation),
            Run { at: 24, bytes: Bytes::Hex(UUID.to_vec()) },
            Run::u64(40, EPOCH),
        ];
        runs.extend(sections);
        runs
    }

    fn laid(&self) -> impl Iterator<Item = Run> {
        let at = self.at;
        let runs = self.runs(crc32c(&flat(&self.runs(0))));
        runs.into_iter().map(move |run| Run { at: at + run.at, ..run })
    }
}

impl Scene {
    /// An image that was closed.
    pub(super) fn clean() -> Self {
        Self {
            header: Header { autoclear_features: JOURNAL, ..Header::default() },
            file_len: SIZE * CLUSTER,
            ring: Ring::EMPTY,
            sections: vec![(1, Bytes::U32(vec![2]))],
            generation: 1,
            older: None,
            blocks: Vec::new(),
            more: Vec::new(),
            is_bare: false,
        }
    }

    /// An image that was open when everything stopped, with these blocks in its ring.
    pub(super) fn crashed(blocks: Vec<Block>) -> Self {
        let clean = Self::clean();
        Self { header: Header { features: ACTIVE, ..clean.header }, blocks, ..clean }
    }

    pub(super) fn superblock(&self) -> Superblock {
        let mut sections = self.sections.clone();
        if !sections.iter().any(|(kind, _)| *kind == 3) {
            sections.push((3, self.ring.payload()));
        }
        sections.sort_by_key(|(kind, _)| *kind);
        Superblock { at: A, generation: self.generation, sections }
    }

    fn runs(&self, superblock: &Superblock) -> Vec<Run> {
        let mut runs: Vec<Run> = superblock.laid().collect();
        runs.extend(self.older.iter().flat_map(Superblock::laid));
        let mut previous = 0;
        for block in &self.blocks {
            let previous_crc = previous ^ block.wrong_previous;
            let crc = block.crc(previous_crc);
            let blocks = (self.ring.len / 4096).max(1);
            let at = self.ring.at + 4096 * block.place.unwrap_or(block.sequence % blocks);
            let laid = block.runs(crc, previous_crc).into_iter();
            runs.extend(laid.map(|run| Run { at: at + run.at, ..run }));
            previous = crc;
        }
        if !self.is_bare && self.header.header_size == 1 {
            runs.extend([Run::u64(L1, L2), Run::u64(L2, DATA)]);
            let there = BYTES.iter().filter(|(at, _)| *at < self.file_len);
            runs.extend(there.map(|(at, byte)| Run::fill(*at, *byte, CLUSTER)));
        }
        runs.extend(self.more.iter().cloned());
        runs
    }

    /// The vector in which this is what is expected.
    pub(super) fn vector(&self, name: String, clause: &'static str, what: &str) -> Vector {
        self.vector_with(&self.superblock(), name, clause, what)
    }

    pub(super) fn vector_with(
        &self,
        superblock: &Superblock,
        name: String,
        clause: &'static str,
        what: &str,
    ) -> Vector {
        Vector {
            name,
            clauses: vec![clause],
            what: what.to_owned(),
            file_len: self.file_len,
            header: self.header,
            runs: self.runs(superblock),
            expect: Expect::accept(),
            qemu: None,
        }
    }
}

/// QEMU knows no JOURNAL_ACTIVE.
pub(super) fn qemu_refuses() -> Option<Qemu> {
    Some(Qemu::refuses("QED-FEAT-01: JOURNAL_ACTIVE is a bit that it does not know"))
}

/// What is seen of the image, and what an open for writing leaves in its tables.
pub(super) fn seen(entries: &Entries) -> Expect {
    let named = |cluster: u64| entries.iter().any(|(_, value)| *value == cluster);
    let is_unnamed = BYTES.iter().any(|(at, _)| !named(*at));
    let is_past_end = |(slot, _): &&(u64, u64)| *slot >= GUEST_CLUSTERS;
    let values = (0..GUEST_CLUSTERS).map(|slot| value_of(entries, slot)).collect();
    let mut after_write = vec![Run::u64(16, 0), Run { at: L2, bytes: Bytes::U64(values) }];
    let past_end = entries.iter().filter(is_past_end);
    after_write.extend(past_end.clone().map(|(slot, value)| Run::u64(L2 + 8 * slot, *value)));
    let is_leaking = past_end.count() > 0;
    Expect {
        map: Some(Map::Runs(map(entries))),
        content: content(entries),
        check: Some(match (is_leaking, is_unnamed) {
            (true, _) => "leaks",
            (false, true) => "free",
            (false, false) => "clean",
        }),
        after_write,
        ..Expect::accept()
    }
}

/// The header can be told, and nothing of the disk: the log breaks a rule.
pub(super) fn refused(clause: &'static str) -> Expect {
    Expect {
        write: Some(Err(clause)),
        map: Some(Map::Fails),
        content: vec![Run { at: 0, bytes: Bytes::Fails(512) }],
        check: Some("refused"),
        ..Expect::accept()
    }
}

fn value_of(entries: &Entries, slot: u64) -> u64 {
    entries.iter().find(|(it, _)| *it == slot).map_or(0, |(_, value)| *value)
}

fn map(entries: &Entries) -> Vec<MapRun> {
    let mut runs: Vec<MapRun> = Vec::new();
    for slot in 0..GUEST_CLUSTERS {
        let kind = match value_of(entries, slot) {
            0 => Kind::Unallocated,
            1 => Kind::Zero,
            host => Kind::Data(host),
        };
        match runs.last_mut() {
            Some(last) if continues(last, kind) => last.len += CLUSTER,
            _ => runs.push(MapRun { at: slot * CLUSTER, len: CLUSTER, kind }),
        }
    }
    runs
}

fn continues(last: &MapRun, kind: Kind) -> bool {
    match (last.kind, kind) {
        (Kind::Data(host), Kind::Data(next)) => host + last.len == next,
        (last, next) => last == next,
    }
}

/// The first bytes of the guest clusters 0 and 1.
fn content(entries: &Entries) -> Vec<Run> {
    let byte = |slot| {
        let value = value_of(entries, slot);
        BYTES.iter().find(|(at, _)| *at == value).map_or(0, |(_, byte)| *byte)
    };
    (0..2).map(|slot| Run::fill(slot * CLUSTER, byte(slot), 512)).collect()
}

/// A block of 4096 bytes with these runs in it.
fn flat(runs: &[Run]) -> Vec<u8> {
    let mut block = vec![0; 4096];
    for run in runs {
        let (at, bytes) = (usize::try_from(run.at).expect("in the block"), bytes_of(&run.bytes));
        block[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    block
}

fn bytes_of(bytes: &Bytes) -> Vec<u8> {
    match bytes {
        Bytes::Text(text) => text.as_bytes().to_vec(),
        Bytes::Hex(bytes) => bytes.clone(),
        Bytes::U32(list) => list.iter().flat_map(|it| it.to_le_bytes()).collect(),
        Bytes::U64(list) => list.iter().flat_map(|it| it.to_le_bytes()).collect(),
        Bytes::Fill { .. } | Bytes::Fails(_) => unreachable!("superblocks and blocks have neither"),
    }
}
