//! L1 and L2 entries: from words of a table to mappings, every bit accounted for.

use qed_spec::HostOffset;

use super::error::Qcow2EntryFault;
use super::geometry::Geometry;

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Zero flag of the standard layout from version 3 on, reserved otherwise.
const ZERO: u64 = 1;
/// Compressed lengths count sectors.
const SECTOR: u64 = 512;
/// The bits of one half of a subcluster bitmap.
const ALL_SUBCLUSTERS: u64 = 0xffff_ffff;

/// What decides whether an entry is legal.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryRules {
    pub(super) geometry: Geometry,
    /// Version 3: the zero flag exists.
    pub(super) has_zero_flag: bool,
    /// Bytes.
    pub(super) file_len: u64,
}

/// What one mapping unit of the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Unallocated,
    Zero,
    /// First byte of the unit in the file.
    Data(HostOffset),
    /// The whole cluster, of which the unit is a part.
    Compressed(CompressedRange),
}

/// Where a compressed cluster lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompressedRange {
    pub(crate) offset: HostOffset,
    /// Bytes, up to the end of the last sector; the stream may end before.
    pub(crate) len: u64,
}

/// A whole cluster of the guest, as its entry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) kind: ClusterKind,
    /// The cluster of the file that the entry names; a compressed one names a range instead.
    pub(crate) host: Option<HostOffset>,
}

/// What a whole cluster of the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterKind {
    Unallocated,
    Zero,
    /// All of it lies at `host`.
    Data,
    Compressed(CompressedRange),
    /// Its subclusters are not all of one kind.
    Mixed,
}

impl EntryRules {
    /// The whole cluster whose entry is `words`.
    pub(super) fn cluster(self, words: &[u64]) -> Result<Cluster, Qcow2EntryFault> {
        let first = self.unit(words, 0)?;
        if let Unit::Compressed(range) = first {
            return Ok(Cluster { kind: ClusterKind::Compressed(range), host: None });
        }
        let value = words.first().copied().unwrap_or(0);
        let host = self.cluster_offset(value)?.map(HostOffset::new);
        let kind = match words.get(1) {
            // The zero flag of a standard entry covers the cluster, and so does its offset.
            None => match first {
                Unit::Unallocated => ClusterKind::Unallocated,
                Unit::Zero => ClusterKind::Zero,
                _ => ClusterKind::Data,
            },
            Some(bitmap) => match (*bitmap >> 32, *bitmap & u64::from(u32::MAX)) {
                (0, 0) => ClusterKind::Unallocated,
                (ALL_SUBCLUSTERS, 0) => ClusterKind::Zero,
                (0, ALL_SUBCLUSTERS) => ClusterKind::Data,
                _ => ClusterKind::Mixed,
            },
        };
        Ok(Cluster { kind, host })
    }

    /// The L2 table that an L1 entry names.
    pub(super) fn l2_table(self, value: u64) -> Result<Option<HostOffset>, Qcow2EntryFault> {
        if value & !(OFFSET | COPIED) != 0 {
            return Err(Qcow2EntryFault::ReservedBits);
        }
        let Some(offset) = self.cluster_offset(value)? else {
            return Ok(None);
        };
        if offset.checked_add(self.geometry.cluster_size()).is_none_or(|end| end > self.file_len) {
            return Err(Qcow2EntryFault::PastEnd);
        }
        Ok(Some(HostOffset::new(offset)))
    }

    /// The unit `subcluster` of the cluster whose entry is `words`, 1 or 2 by the layout.
    pub(super) fn unit(self, words: &[u64], subcluster: u64) -> Result<Unit, Qcow2EntryFault> {
        match *words {
            [value] => self.standard(value),
            [value, bitmap] => self.extended(value, bitmap, subcluster),
            _ => unreachable!("the layouts have one and two words"),
        }
    }

    fn standard(self, value: u64) -> Result<Unit, Qcow2EntryFault> {
        if value & COMPRESSED != 0 {
            return self.compressed(value);
        }
        let flags = if self.has_zero_flag { COPIED | ZERO } else { COPIED };
        let Some(offset) = self.data_offset(value, flags)? else {
            return Ok(if value & ZERO != 0 { Unit::Zero } else { Unit::Unallocated });
        };
        Ok(if value & ZERO != 0 { Unit::Zero } else { Unit::Data(offset) })
    }

    fn extended(self, value: u64, bitmap: u64, subcluster: u64) -> Result<Unit, Qcow2EntryFault> {
        if value & COMPRESSED != 0 {
            return match bitmap {
                0 => self.compressed(value),
                _ => Err(Qcow2EntryFault::SubclusterBitmap),
            };
        }
        let offset = self.data_offset(value, COPIED)?;
        let (zero, allocated) = (bitmap >> 32, bitmap & u64::from(u32::MAX));
        if zero & allocated != 0 || (offset.is_none() && allocated != 0) {
            return Err(Qcow2EntryFault::SubclusterBitmap);
        }
        let is_in = |set: u64| set >> subcluster & 1 != 0;
        Ok(match offset {
            _ if is_in(zero) => Unit::Zero,
            Some(offset) if is_in(allocated) => {
                let within = subcluster << self.geometry.unit_bits();
                Unit::Data(HostOffset::new(offset.get() + within))
            }
            _ => Unit::Unallocated,
        })
    }

    fn data_offset(self, value: u64, flags: u64) -> Result<Option<HostOffset>, Qcow2EntryFault> {
        if value & !(OFFSET | flags) != 0 {
            return Err(Qcow2EntryFault::ReservedBits);
        }
        match self.cluster_offset(value)? {
            Some(offset) if offset >= self.file_len => Err(Qcow2EntryFault::PastEnd),
            offset => Ok(offset.map(HostOffset::new)),
        }
    }

    /// The offset bits, unless they are zero.
    fn cluster_offset(self, value: u64) -> Result<Option<u64>, Qcow2EntryFault> {
        let offset = value & OFFSET;
        if !offset.is_multiple_of(self.geometry.cluster_size()) {
            return Err(Qcow2EntryFault::Unaligned);
        }
        Ok(Some(offset).filter(|offset| *offset != 0))
    }

    fn compressed(self, value: u64) -> Result<Unit, Qcow2EntryFault> {
        // QEMU never sets it, since a compressed cluster is copied before it is changed.
        if value & COPIED != 0 {
            return Err(Qcow2EntryFault::ReservedBits);
        }
        // The larger the clusters, the more bits the length takes from the offset.
        let offset_bits = 62 - (self.geometry.cluster_bits() - 8);
        let value = value & !COMPRESSED;
        let offset = value & ((1 << offset_bits) - 1);
        if offset >= self.file_len {
            return Err(Qcow2EntryFault::PastEnd);
        }
        let sectors = (value >> offset_bits) + 1;
        let len = sectors * SECTOR - offset % SECTOR;
        Ok(Unit::Compressed(CompressedRange { offset: HostOffset::new(offset), len }))
    }
}

impl Unit {
    /// Whether `next`, `units` further on, continues the run that starts with this unit, where a
    /// unit has `unit_len` bytes. Compressed clusters never do: each is a stream of its own.
    pub(super) fn continues(self, next: Self, units: u64, unit_len: u64) -> bool {
        match (self, next) {
            (Self::Data(first), Self::Data(next)) => {
                next.get().checked_sub(first.get()) == Some(units * unit_len)
            }
            (Self::Zero, Self::Zero) | (Self::Unallocated, Self::Unallocated) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::L2Layout;
    use super::*;

    const FILE_LEN: u64 = 1 << 30;

    fn rules(cluster_bits: u32, layout: L2Layout, has_zero_flag: bool) -> EntryRules {
        let geometry = Geometry::new(cluster_bits, layout).expect("legal");
        EntryRules { geometry, has_zero_flag, file_len: FILE_LEN }
    }

    fn data(offset: u64) -> Result<Unit, Qcow2EntryFault> {
        Ok(Unit::Data(HostOffset::new(offset)))
    }

    fn compressed(offset: u64, len: u64) -> Result<Unit, Qcow2EntryFault> {
        Ok(Unit::Compressed(CompressedRange { offset: HostOffset::new(offset), len }))
    }

    #[test]
    fn standard_entries() {
        use Qcow2EntryFault::{PastEnd, ReservedBits, Unaligned};
        let rules = rules(16, L2Layout::Standard, true);
        for (value, expected) in [
            (0, Ok(Unit::Unallocated)),
            (COPIED, Ok(Unit::Unallocated)),
            (1, Ok(Unit::Zero)),
            (0x1_0001, Ok(Unit::Zero)),
            (COPIED | 0x1_0000, data(0x1_0000)),
            (0x1_0000, data(0x1_0000)),
            (0x1_0002, Err(ReservedBits)),
            (1 << 56 | 0x1_0000, Err(ReservedBits)),
            (1 << 61, Err(ReservedBits)),
            (0x1_0200, Err(Unaligned)),
            (FILE_LEN, Err(PastEnd)),
            (FILE_LEN | ZERO, Err(PastEnd)),
            (OFFSET & !0xffff, Err(PastEnd)),
            (COMPRESSED | 0x1_0000, compressed(0x1_0000, 512)),
            (COMPRESSED | 1 << 54 | 0x1_0007, compressed(0x1_0007, 1017)),
            (COMPRESSED | COPIED | 0x1_0000, Err(ReservedBits)),
            (COMPRESSED | FILE_LEN, Err(PastEnd)),
            (COMPRESSED | ((1 << 54) - 1), Err(PastEnd)),
        ] {
            assert_eq!(rules.unit(&[value], 0), expected, "{value:#x}");
        }
    }

    #[test]
    fn version_2_has_no_zero_flag() {
        let rules = rules(16, L2Layout::Standard, false);
        assert_eq!(rules.unit(&[1], 0), Err(Qcow2EntryFault::ReservedBits));
    }

    #[test]
    fn extended_entries() {
        use Qcow2EntryFault::{ReservedBits, SubclusterBitmap};
        let rules = rules(16, L2Layout::Extended, true);
        for (words, subcluster, expected) in [
            ([0x1_0000, 0b10], 0, Ok(Unit::Unallocated)),
            ([0x1_0000, 0b10], 1, data(0x1_0800)),
            ([0x1_0000, 1 << 31], 31, data(0x1_f800)),
            ([0x1_0000, 1 << 63], 31, Ok(Unit::Zero)),
            ([0, 1 << 32], 0, Ok(Unit::Zero)),
            ([0, 1 << 32], 1, Ok(Unit::Unallocated)),
            ([0, 1], 5, Err(SubclusterBitmap)),
            ([0x1_0000, 1 << 33 | 0b10], 0, Err(SubclusterBitmap)),
            ([0x1_0001, 0], 0, Err(ReservedBits)),
            ([COMPRESSED | 0x1_0000, 0], 3, compressed(0x1_0000, 512)),
            ([COMPRESSED | 0x1_0000, 1], 3, Err(SubclusterBitmap)),
        ] {
            assert_eq!(rules.unit(&words, subcluster), expected, "{words:x?} {subcluster}");
        }
    }

    #[test]
    fn compressed_lengths_follow_the_cluster_size() {
        for bits in 9..=21 {
            let rules = rules(bits, L2Layout::Standard, true);
            let all = (1_u64 << (bits - 8)) - 1;
            let value = COMPRESSED | all << (62 - (bits - 8)) | 512;
            assert_eq!(rules.unit(&[value], 0), compressed(512, (all + 1) * 512), "{bits}");
        }
    }

    #[test]
    fn l1_entries() {
        use Qcow2EntryFault::{PastEnd, ReservedBits, Unaligned};
        let rules = rules(16, L2Layout::Standard, true);
        for (value, expected) in [
            (0, Ok(None)),
            (COPIED | 0x1_0000, Ok(Some(HostOffset::new(0x1_0000)))),
            (FILE_LEN - 0x1_0000, Ok(Some(HostOffset::new(FILE_LEN - 0x1_0000)))),
            (FILE_LEN, Err(PastEnd)),
            (1, Err(ReservedBits)),
            (COMPRESSED | 0x1_0000, Err(ReservedBits)),
            (0x1_0200, Err(Unaligned)),
        ] {
            assert_eq!(rules.l2_table(value), expected, "{value:#x}");
        }
    }
}
