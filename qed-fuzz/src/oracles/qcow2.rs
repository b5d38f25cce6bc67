//! A QCOW2 image as its bytes say, entry by entry, and that the reader shows just that.
//!
//! Streams are not decompressed here: whether they read right is the business of models.

use std::ops::Range;

use qed_convert::Qcow2Image;
use qed_core::{BackingFile, GuestExtentKind};

use crate::branches::Branches;
use crate::size::usize_of;
use crate::sparse::SparseContent;

/// Extents that are asked for, at most, and bytes of each that are read.
const MAX_EXTENTS: usize = 2048;
const READ_LEN: u64 = 8192;
/// Mapping units that one extent is compared in, at most.
const MAX_UNITS: u64 = 4096;

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// The image as it is now, by the fields of its header.
pub(crate) struct Qcow2Reference<'a> {
    content: &'a SparseContent,
    version: u64,
    cluster_bits: u64,
    is_extended: bool,
    l1: u64,
    l1_size: u64,
    size: u64,
}

/// What one mapping unit is; none for an entry that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Unallocated,
    Zero,
    /// From this byte of the file on.
    Data(u64),
    Compressed,
}

impl<'a> Qcow2Reference<'a> {
    /// The image, whose header has been accepted.
    pub(crate) fn new(content: &'a SparseContent) -> Self {
        let field = |at: u64, len: u64| {
            let bytes = content.bytes(at..at + len);
            bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
        };
        let version = field(4, 4);
        Self {
            version,
            cluster_bits: field(20, 4),
            is_extended: version == 3 && field(72, 8) & (1 << 4) != 0,
            l1: field(40, 8),
            l1_size: field(36, 4),
            size: field(24, 8),
            content,
        }
    }

    /// The disk has these extents, each byte in one, and reads as they say.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn assert_shown_by(&self, image: &Qcow2Image, branches: &mut Branches) {
        assert_eq!(image.image_size(), self.size);
        let mut at = 0;
        for _ in 0..MAX_EXTENTS {
            if at >= self.size {
                return;
            }
            at = self.assert_extent(image, at, branches);
        }
    }

    /// Looks at the extent at `at`; where it ends.
    fn assert_extent(&self, image: &Qcow2Image, at: u64, branches: &mut Branches) -> u64 {
        let unit_len = self.unit_len();
        let expected = self.unit(at);
        branches.note("qcow2", expected);
        let extent = image.extent_at(at, self.size - at);
        let Some(expected) = expected else {
            assert!(extent.is_err(), "a bad entry at {at:#x} is shown as {extent:?}");
            let end = (at - at % unit_len + unit_len).min(self.size);
            assert!(read(image, at..end.min(at + READ_LEN)).is_err(), "a bad entry is read");
            return end;
        };
        let extent = extent.unwrap_or_else(|error| panic!("{at:#x}, {expected:x?}: {error:?}"));
        let end = at + extent.len;
        assert!(extent.len > 0 && end <= self.size && extent.depth == 0, "{extent:?} at {at:#x}");
        let shown = match extent.kind {
            GuestExtentKind::Data { host_offset } => Unit::Data(host_offset),
            GuestExtentKind::Compressed => Unit::Compressed,
            GuestExtentKind::Zero => Unit::Zero,
            GuestExtentKind::Unallocated => Unit::Unallocated,
        };
        let mut inside = at;
        for _ in 0..MAX_UNITS {
            if inside >= end {
                break;
            }
            let shown = match shown {
                Unit::Data(host) => Unit::Data(host + (inside - at)),
                other => other,
            };
            assert_eq!(Some(shown), self.unit(inside), "at {inside:#x} of an extent at {at:#x}");
            inside = inside - inside % unit_len + unit_len;
        }
        self.assert_read(image, at..end.min(at + READ_LEN), shown);
        end
    }

    fn assert_read(&self, image: &Qcow2Image, range: Range<u64>, unit: Unit) {
        let len = range.end - range.start;
        let found = read(image, range.clone());
        let expected = match unit {
            // Its stream may be bad.
            Unit::Compressed => return,
            Unit::Unallocated | Unit::Zero => vec![0; usize_of(len)],
            Unit::Data(host) => self.content.bytes(host..host + len),
        };
        assert!(found.as_ref() == Ok(&expected), "{range:x?} of {unit:x?}: {:?}", found.err());
    }

    fn unit_len(&self) -> u64 {
        1 << (self.cluster_bits - if self.is_extended { 5 } else { 0 })
    }

    /// What the unit of a guest byte is, and for data where that byte lies.
    fn unit(&self, at: u64) -> Option<Unit> {
        let cluster_size = 1 << self.cluster_bits;
        let entry_len = if self.is_extended { 16 } else { 8 };
        let entries = cluster_size / entry_len;
        let cluster = at >> self.cluster_bits;
        let (slot, entry) = (cluster / entries, cluster % entries);
        if slot >= self.l1_size {
            return Some(Unit::Unallocated);
        }
        let table = self.word(self.l1 + 8 * slot);
        if table & !(OFFSET | COPIED) != 0 || !(table & OFFSET).is_multiple_of(cluster_size) {
            return None;
        }
        let table = table & OFFSET;
        if table == 0 {
            return Some(Unit::Unallocated);
        }
        if table + cluster_size > self.content.len() {
            return None;
        }
        let word = self.word(table + entry * entry_len);
        let bitmap = if self.is_extended { self.word(table + entry * entry_len + 8) } else { 0 };
        if word & COMPRESSED != 0 {
            return self.compressed(word).filter(|_| bitmap == 0);
        }
        let has_flag = self.version == 3 && !self.is_extended;
        let flags = COPIED | u64::from(has_flag);
        let host = word & OFFSET;
        let is_past_end = host != 0 && host >= self.content.len();
        if word & !(OFFSET | flags) != 0 || !host.is_multiple_of(cluster_size) || is_past_end {
            return None;
        }
        let data = (host != 0).then(|| Unit::Data(host + at % cluster_size));
        if !self.is_extended {
            let zero = (word & 1 != 0).then_some(Unit::Zero);
            return Some(zero.or(data).unwrap_or(Unit::Unallocated));
        }
        let (zero, allocated) = (bitmap >> 32, bitmap & u64::from(u32::MAX));
        if zero & allocated != 0 || (host == 0 && allocated != 0) {
            return None;
        }
        let bit = 1 << (at % cluster_size / (cluster_size / 32));
        let zero = (zero & bit != 0).then_some(Unit::Zero);
        Some(zero.or(data.filter(|_| allocated & bit != 0)).unwrap_or(Unit::Unallocated))
    }

    fn compressed(&self, word: u64) -> Option<Unit> {
        let offset_bits = 70 - self.cluster_bits;
        let offset = word & ((1 << offset_bits) - 1);
        (word & COPIED == 0 && offset < self.content.len()).then_some(Unit::Compressed)
    }

    fn word(&self, at: u64) -> u64 {
        let bytes = self.content.bytes(at..at + 8);
        u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
    }
}

fn read(image: &Qcow2Image, range: Range<u64>) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0xee; usize_of(range.end - range.start)];
    let read = BackingFile::read_at(image, &mut bytes, range.start);
    read.map(|()| bytes).map_err(|error| format!("{error:?}"))
}
