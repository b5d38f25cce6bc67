//! Internal snapshots: the table that lists them, and how a caller names one.

use qed_io::Storage;
use qed_spec::HostOffset;
use zerocopy::FromBytes;
use zerocopy::big_endian::U64;

use super::error::{Qcow2FormatError, Qcow2OpenError, Qcow2Part};
use super::header::{L1Place, MAX_SNAPSHOTS, Qcow2Header, check_l1, sector_multiple};
use super::parse::{self, SnapshotTail};
use super::raw::RawSnapshotHead;

/// Longest extra data that QEMU reads, in bytes.
const MAX_EXTRA_LEN: u32 = 1024;
/// Longest table that is read, in bytes: QEMU's ids and names fit 65,536 times.
const MAX_TABLE_LEN: u64 = 32 << 20;
const HEAD_LEN: usize = size_of::<RawSnapshotHead>();

/// An internal snapshot, as its image describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qcow2SnapshotInfo {
    /// The id, in no particular encoding; QEMU gives numbers.
    pub id: Vec<u8>,
    /// The tag, in no particular encoding.
    pub name: Vec<u8>,
    /// Bytes of the virtual disk, where the image says so: it may have been resized since.
    pub image_size: Option<u64>,
    /// When it was taken: seconds since 1970 began.
    pub date_sec: u32,
    /// Nanoseconds of the second.
    pub date_nsec: u32,
    /// Time that the guest had run, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Bytes of the state of the virtual machine; 0 for a disk alone.
    pub vm_state_size: u64,
    /// Instructions that the guest had run, where QEMU counted them.
    pub icount: Option<u64>,
}

/// A snapshot and the place of its L1 table, which is not checked before it is used.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) info: Qcow2SnapshotInfo,
    l1: L1Place,
}

/// Names an internal snapshot. The first that fits is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Qcow2SnapshotSelector {
    /// The one with this id; if there is none, the one with this name.
    IdOrName(Vec<u8>),
    /// The one with this id.
    Id(Vec<u8>),
    /// The one with this name.
    Name(Vec<u8>),
    /// The one with this id, if it has this name.
    IdAndName {
        /// The id.
        id: Vec<u8>,
        /// The name.
        name: Vec<u8>,
    },
}

impl Qcow2SnapshotSelector {
    /// The selector that `qemu-img -l` reads from `text`: `snapshot.id=ID,snapshot.name=NAME` with
    /// either part, a doubled comma standing for a comma, or a plain id or name.
    ///
    /// None if `text` starts with `snapshot.` and is not of that form.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if !text.starts_with(b"snapshot.") {
            return Some(Self::IdOrName(text.to_vec()));
        }
        let (mut id, mut name) = (None, None);
        for part in split_options(text) {
            if let Some(value) = part.strip_prefix(b"snapshot.id=") {
                id = Some(value.to_vec());
            } else if let Some(value) = part.strip_prefix(b"snapshot.name=") {
                name = Some(value.to_vec());
            } else {
                return None;
            }
        }
        match (id, name) {
            (Some(id), Some(name)) => Some(Self::IdAndName { id, name }),
            (Some(id), None) => Some(Self::Id(id)),
            (None, Some(name)) => Some(Self::Name(name)),
            (None, None) => None,
        }
    }

    fn find<'a>(&self, snapshots: &'a [Snapshot]) -> Option<&'a Snapshot> {
        let by = |fits: &dyn Fn(&Qcow2SnapshotInfo) -> bool| {
            snapshots.iter().find(|snapshot| fits(&snapshot.info))
        };
        match self {
            Self::IdOrName(text) => {
                by(&|info| info.id == *text).or_else(|| by(&|info| info.name == *text))
            }
            Self::Id(id) => by(&|info| info.id == *id),
            Self::Name(name) => by(&|info| info.name == *name),
            Self::IdAndName { id, name } => by(&|info| info.id == *id && info.name == *name),
        }
    }
}

impl std::fmt::Display for Qcow2SnapshotSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IdOrName(text) => write!(f, "id or name '{}'", text.escape_ascii()),
            Self::Id(id) => write!(f, "id '{}'", id.escape_ascii()),
            Self::Name(name) => write!(f, "name '{}'", name.escape_ascii()),
            Self::IdAndName { id, name } => {
                write!(f, "id '{}' and name '{}'", id.escape_ascii(), name.escape_ascii())
            }
        }
    }
}

/// Reads the snapshot table.
pub(super) fn read_snapshots(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
) -> Result<Vec<Snapshot>, Qcow2OpenError> {
    let place = header.snapshots();
    let mut at = place.offset;
    let mut snapshots = Vec::new();
    for index in 0..place.count {
        let limit = file_len.min(place.offset.saturating_add(MAX_TABLE_LEN));
        let (snapshot, len) = read_snapshot(storage, at, limit, index)?;
        snapshots.push(snapshot);
        at = at.saturating_add(len);
    }
    Ok(snapshots)
}

/// The L1 table and the virtual size of the snapshot that `selector` names.
///
/// A snapshot that does not say its size has that of the image. Its L1 table may then be shorter,
/// and what it does not map is unallocated.
pub(super) fn select(
    selector: &Qcow2SnapshotSelector,
    snapshots: &[Snapshot],
    header: &Qcow2Header,
    file_len: u64,
) -> Result<(L1Place, u64), Qcow2OpenError> {
    let found = selector.find(snapshots);
    let snapshot =
        found.ok_or_else(|| Qcow2OpenError::SnapshotNotFound { wanted: selector.to_string() })?;
    let table = Qcow2Part::SnapshotL1Table;
    check_l1(snapshot.l1, table, header.geometry(), file_len)?;
    let Some(size) = snapshot.info.image_size else {
        return Ok((snapshot.l1, header.image_size()));
    };
    let size = sector_multiple(size)?;
    let needed = header.geometry().l1_entries_for(size);
    if u64::from(snapshot.l1.entries) < needed {
        let found = snapshot.l1.entries;
        return Err(Qcow2FormatError::L1TooSmall { table, found, needed }.into());
    }
    Ok((snapshot.l1, size))
}

/// Reads entry `index` at `at`, which must end at or before `limit`; the entry and its length.
fn read_snapshot(
    storage: &dyn Storage,
    at: u64,
    limit: u64,
    index: u32,
) -> Result<(Snapshot, u64), Qcow2OpenError> {
    debug_assert!(index < MAX_SNAPSHOTS, "checked with the header");
    let bad_entry = || Qcow2FormatError::SnapshotEntry { index, at };
    let read = |len: usize, at: u64| {
        if at.checked_add(len as u64).is_none_or(|end| end > limit) {
            return Err(bad_entry().into());
        }
        let mut bytes = vec![0; len];
        let at_host = HostOffset::new(at);
        let what = Qcow2Part::SnapshotTable;
        let io = |source| Qcow2OpenError::Io { what, at: at_host, source };
        storage.read_at(&mut bytes, at).map(|()| bytes).map_err(io)
    };
    let bytes = read(HEAD_LEN, at)?;
    let head = RawSnapshotHead::ref_from_bytes(&bytes).map_err(|_| bad_entry())?;
    let extra_len = head.extra_data_size.get();
    if extra_len > MAX_EXTRA_LEN {
        return Err(bad_entry().into());
    }
    let tail_len =
        u64::from(extra_len) + u64::from(head.id_str_size.get()) + u64::from(head.name_size.get());
    let tail = read(usize::try_from(tail_len).map_err(|_| bad_entry())?, at + HEAD_LEN as u64)?;
    let (_, tail) = parse::snapshot_tail(head, &tail).map_err(|_| bad_entry())?;
    let len = (HEAD_LEN as u64 + tail_len).next_multiple_of(8);
    Ok((snapshot(head, &tail), len))
}

fn snapshot(head: &RawSnapshotHead, tail: &SnapshotTail<'_>) -> Snapshot {
    let extra_field = |index: usize| {
        let bytes = tail.extra.chunks_exact(8).nth(index)?;
        U64::read_from_bytes(bytes).ok().map(U64::get)
    };
    Snapshot {
        info: Qcow2SnapshotInfo {
            id: tail.id.to_vec(),
            name: tail.name.to_vec(),
            image_size: extra_field(1),
            date_sec: head.date_sec.get(),
            date_nsec: head.date_nsec.get(),
            vm_clock_nsec: head.vm_clock_nsec.get(),
            vm_state_size: extra_field(0).unwrap_or_else(|| head.vm_state_size.get().into()),
            icount: extra_field(2).filter(|count| *count != u64::MAX),
        },
        l1: L1Place { offset: head.l1_table_offset.get(), entries: head.l1_size.get() },
    }
}

/// Splits at single commas; two commas stand for one that does not split.
fn split_options(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Qcow2SnapshotSelector>) {
        assert_eq!(Qcow2SnapshotSelector::parse(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn selectors_read_as_qemu_img_reads_them() {
        use Qcow2SnapshotSelector as Is;
        check("one", Some(Is::IdOrName(b"one".to_vec())));
        check("a,b=c", Some(Is::IdOrName(b"a,b=c".to_vec())));
        check("snapshot.id=7", Some(Is::Id(b"7".to_vec())));
        check("snapshot.name=a,,b", Some(Is::Name(b"a,b".to_vec())));
        let both = Is::IdAndName { id: b"1".to_vec(), name: b"one".to_vec() };
        check("snapshot.id=1,snapshot.name=one", Some(both.clone()));
        check("snapshot.name=one,snapshot.id=1", Some(both));
        check("snapshot.", None);
        check("snapshot.id", None);
        check("snapshot.id=1,size=2", None);
        check("snapshot.id=1,", None);
    }
}
