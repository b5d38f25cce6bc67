//! The shape of a QCOW2 image: every shift and mask of guest offsets and tables.

use qed_spec::GuestOffset;

/// Smallest and largest cluster, as powers of two.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Subclusters exist from 16 KiB clusters, so that one is never below 512 bytes.
pub(super) const MIN_EXTENDED_CLUSTER_BITS: u32 = 14;
/// Subclusters of a cluster with extended L2 entries.
pub(super) const SUBCLUSTERS_BITS: u32 = 5;
/// Longest slice of a table that is read and cached at once, in bytes.
const MAX_SLICE_BITS: u32 = 12;

/// What an L2 entry looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum L2Layout {
    /// 8 bytes, one mapping for a cluster.
    Standard,
    /// 16 bytes, a mapping for each of 32 subclusters.
    Extended,
}

/// Cluster size and L2 layout, which together fix how guest offsets split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    cluster_bits: u32,
    layout: L2Layout,
}

/// Where the entry of a guest offset lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) l1: u64,
    /// Entry of the L2 table.
    pub(super) l2: u64,
    /// Number of the slice among all slices of the guest's L2 tables, and entry in it.
    pub(super) slice: u64,
    pub(super) slot: u64,
    /// Subcluster of the entry; 0 in the standard layout.
    pub(super) subcluster: u64,
    /// Byte in the mapping unit.
    pub(super) within: u64,
}

impl Geometry {
    /// The geometry, if QEMU reads such images.
    pub(super) fn new(cluster_bits: u32, layout: L2Layout) -> Option<Self> {
        let legal = CLUSTER_BITS.contains(&cluster_bits)
            && (layout == L2Layout::Standard || cluster_bits >= MIN_EXTENDED_CLUSTER_BITS);
        legal.then_some(Self { cluster_bits, layout })
    }

    pub(super) fn cluster_bits(self) -> u32 {
        self.cluster_bits
    }

    pub(super) fn layout(self) -> L2Layout {
        self.layout
    }

    /// Bytes.
    pub(super) fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of the smallest run with a mapping of its own: a cluster or a subcluster.
    pub(super) fn unit_bits(self) -> u32 {
        match self.layout {
            L2Layout::Standard => self.cluster_bits,
            L2Layout::Extended => self.cluster_bits - SUBCLUSTERS_BITS,
        }
    }

    /// Mapping units of a cluster.
    pub(super) fn units_per_cluster(self) -> u64 {
        1 << (self.cluster_bits - self.unit_bits())
    }

    /// Words of 8 bytes in an L2 entry.
    pub(super) fn words_per_entry(self) -> u64 {
        1 << self.word_bits()
    }

    /// Guest bytes that one L2 table maps.
    pub(super) fn l2_coverage(self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits())
    }

    /// Bytes of a slice of an L2 table.
    pub(super) fn slice_len(self) -> u64 {
        1 << self.slice_len_bits()
    }

    /// L2 entries of a slice.
    pub(super) fn slice_entries(self) -> u64 {
        1 << self.slice_bits()
    }

    /// L1 entries that map `size` guest bytes.
    pub(super) fn l1_entries_for(self, size: u64) -> u64 {
        size.div_ceil(self.l2_coverage())
    }

    /// The first byte of the cluster of `at`.
    pub(super) fn cluster_start(self, at: GuestOffset) -> GuestOffset {
        GuestOffset::new(at.get() & !(self.cluster_size() - 1))
    }

    pub(super) fn place(self, at: GuestOffset) -> Place {
        let at = at.get();
        let cluster = at >> self.cluster_bits;
        let in_cluster = at & (self.cluster_size() - 1);
        Place {
            l1: cluster >> self.l2_bits(),
            l2: cluster & ((1 << self.l2_bits()) - 1),
            slice: cluster >> self.slice_bits(),
            slot: cluster & (self.slice_entries() - 1),
            subcluster: in_cluster >> self.unit_bits(),
            within: in_cluster & ((1 << self.unit_bits()) - 1),
        }
    }

    /// Log2 of the 8-byte words of an entry.
    fn word_bits(self) -> u32 {
        match self.layout {
            L2Layout::Standard => 0,
            L2Layout::Extended => 1,
        }
    }

    /// Log2 of the entries of an L2 table, which is one cluster.
    fn l2_bits(self) -> u32 {
        self.cluster_bits - 3 - self.word_bits()
    }

    fn slice_len_bits(self) -> u32 {
        self.cluster_bits.min(MAX_SLICE_BITS)
    }

    fn slice_bits(self) -> u32 {
        self.slice_len_bits() - 3 - self.word_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Geometry> {
        let of = |bits| {
            [L2Layout::Standard, L2Layout::Extended].map(|layout| Geometry::new(bits, layout))
        };
        (0..64).flat_map(of).flatten()
    }

    #[test]
    fn exactly_the_shapes_qemu_reads_exist() {
        assert_eq!(all().count(), 13 + 8);
    }

    #[test]
    fn places_count_up_with_the_guest_offset() {
        for geometry in all() {
            let unit = 1 << geometry.unit_bits();
            let tables = geometry.l2_coverage();
            for at in [0, unit - 1, unit, geometry.cluster_size(), tables - 1, tables, 3 * tables] {
                let place = geometry.place(GuestOffset::new(at));
                let cluster = at / geometry.cluster_size();
                let entries = geometry.l2_coverage() / geometry.cluster_size();
                assert_eq!(place.l1 * entries + place.l2, cluster);
                assert_eq!(place.slice * geometry.slice_entries() + place.slot, cluster);
                let unit_number = cluster * geometry.units_per_cluster() + place.subcluster;
                assert_eq!(unit_number * unit + place.within, at);
            }
            let entry_len = 8 * geometry.words_per_entry();
            assert_eq!(geometry.slice_entries() * entry_len, geometry.slice_len());
            assert_eq!(tables / geometry.cluster_size() * entry_len, geometry.cluster_size());
        }
    }
}
