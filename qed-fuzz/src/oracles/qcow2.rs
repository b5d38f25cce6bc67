//! A QCOW2 image as its bytes say, entry by entry, and that the reader shows just that.
//!
//! Streams are not decompressed here: whether they read right is the business of models.

use std::ops::Range;

use qed_convert::qcow2::{Qcow2Corruption, Qcow2Image, Qcow2ReadError};
use qed_core::{GuestExtentKind, VirtualDisk};
use qed_spec::GuestOffset;

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

/// Why an entry breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Table,
    Reserved,
    Unaligned,
    PastEnd,
    Bitmap,
}

/// What one mapping unit is.
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
        let area = if self.is_extended { "extended" } else { "standard" };
        branches.note(area, expected);
        let extent = image.extent_at(at, self.size - at);
        let Ok(expected) = expected else {
            assert!(extent.is_err(), "a bad entry at {at:#x} is shown as {extent:?}");
            let end = (at - at % unit_len + unit_len).min(self.size);
            assert!(read(image, at..end.min(at + READ_LEN)).is_err(), "a bad entry is read");
            return end;
        };
        let extent = extent.unwrap_or_else(|error| panic!("{at:#x}, {expected:x?}: {error:?}"));
        let end = at + extent.len;
        assert!(extent.len > 0 && end <= self.size && extent.depth == 0, "{extent:?} at {at:#x}");
        let shown = match extent.kind {
            GuestExtentKind::Data { host_offset } | GuestExtentKind::Hole { host_offset } => {
                Unit::Data(host_offset)
            }
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
            assert_eq!(Ok(shown), self.unit(inside), "at {inside:#x} of an extent at {at:#x}");
            inside = inside - inside % unit_len + unit_len;
        }
        self.assert_read(image, at..end.min(at + READ_LEN), shown, branches);
        end
    }

    fn assert_read(
        &self,
        image: &Qcow2Image,
        range: Range<u64>,
        unit: Unit,
        branches: &mut Branches,
    ) {
        let len = range.end - range.start;
        let found = read(image, range.clone());
        let expected = match unit {
            // Its stream may be bad.
            Unit::Compressed => return note_stream(&found, branches),
            Unit::Unallocated | Unit::Zero => vec![0; usize_of(len)],
            Unit::Data(host) => self.content.bytes(host..host + len),
        };
        let found = found.unwrap_or_else(|error| panic!("{range:x?} of {unit:x?}: {error:?}"));
        assert!(found == expected, "{range:x?} of {unit:x?}: other bytes");
    }

    fn unit_len(&self) -> u64 {
        1 << (self.cluster_bits - if self.is_extended { 5 } else { 0 })
    }

    /// What the unit of a guest byte is, and for data where that byte lies.
    fn unit(&self, at: u64) -> Result<Unit, Fault> {
        let cluster_size = 1 << self.cluster_bits;
        let entry_len = if self.is_extended { 16 } else { 8 };
        let entries = cluster_size / entry_len;
        let cluster = at >> self.cluster_bits;
        let (slot, entry) = (cluster / entries, cluster % entries);
        if slot >= self.l1_size {
            return Ok(Unit::Unallocated);
        }
        let value = self.word(self.l1 + 8 * slot);
        let table = value & OFFSET;
        if value & !(OFFSET | COPIED) != 0 || !table.is_multiple_of(cluster_size) {
            return Err(Fault::Table);
        }
        if table == 0 {
            return Ok(Unit::Unallocated);
        }
        if table + cluster_size > self.content.len() {
            return Err(Fault::Table);
        }
        let word = self.word(table + entry * entry_len);
        if self.is_extended {
            self.extended(word, self.word(table + entry * entry_len + 8), at % cluster_size)
        } else {
            self.standard(word, at % cluster_size)
        }
    }

    fn standard(&self, word: u64, within: u64) -> Result<Unit, Fault> {
        if word & COMPRESSED != 0 {
            return self.compressed(word);
        }
        let zero_flag = u64::from(self.version == 3);
        let host = self.host(word, COPIED | zero_flag)?;
        if word & 1 != 0 {
            return Ok(Unit::Zero);
        }
        Ok(host.map_or(Unit::Unallocated, |host| Unit::Data(host + within)))
    }

    fn extended(&self, word: u64, bitmap: u64, within: u64) -> Result<Unit, Fault> {
        if word & COMPRESSED != 0 {
            return if bitmap == 0 { self.compressed(word) } else { Err(Fault::Bitmap) };
        }
        let host = self.host(word, COPIED)?;
        let (zero, allocated) = (bitmap >> 32, bitmap & u64::from(u32::MAX));
        if zero & allocated != 0 || (host.is_none() && allocated != 0) {
            return Err(Fault::Bitmap);
        }
        let bit = 1 << (within / self.unit_len());
        if zero & bit != 0 {
            return Ok(Unit::Zero);
        }
        let host = host.filter(|_| allocated & bit != 0);
        Ok(host.map_or(Unit::Unallocated, |host| Unit::Data(host + within)))
    }

    /// The cluster that an entry with no other flags than these names.
    fn host(&self, word: u64, flags: u64) -> Result<Option<u64>, Fault> {
        let host = word & OFFSET;
        if word & !(OFFSET | flags) != 0 {
            Err(Fault::Reserved)
        } else if !host.is_multiple_of(1 << self.cluster_bits) {
            Err(Fault::Unaligned)
        } else if host != 0 && host >= self.content.len() {
            Err(Fault::PastEnd)
        } else {
            Ok(Some(host).filter(|host| *host != 0))
        }
    }

    fn compressed(&self, word: u64) -> Result<Unit, Fault> {
        let offset_bits = 70 - self.cluster_bits;
        let offset = word & ((1 << offset_bits) - 1);
        if word & COPIED != 0 {
            Err(Fault::Reserved)
        } else if offset >= self.content.len() {
            Err(Fault::PastEnd)
        } else {
            Ok(Unit::Compressed)
        }
    }

    fn word(&self, at: u64) -> u64 {
        let bytes = self.content.bytes(at..at + 8);
        u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
    }
}

fn read(image: &Qcow2Image, range: Range<u64>) -> Result<Vec<u8>, Qcow2ReadError> {
    let mut bytes = vec![0xee; usize_of(range.end - range.start)];
    image.read_at(&mut bytes, GuestOffset::new(range.start)).map(|()| bytes)
}

fn note_stream(found: &Result<Vec<u8>, Qcow2ReadError>, branches: &mut Branches) {
    match found {
        Ok(_) => branches.note("stream", Ok::<(), ()>(())),
        Err(Qcow2ReadError::Corrupt(Qcow2Corruption::Stream { fault, .. })) => {
            branches.note("stream", fault);
        }
        Err(error) => panic!("{error:?} of a compressed cluster"),
    }
}
