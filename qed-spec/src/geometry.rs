//! The shape of an image: every shift and mask between bytes, clusters and table indices.
//!
//! A `Geometry` exists only for the 75 legal shapes: 15 cluster sizes times 5 table sizes.

use crate::addr::{
    ClusterCount, GuestCluster, GuestOffset, HostCluster, HostOffset, L1Index, L2Index,
};

/// Cluster size and table size of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// log2 of the cluster size in bytes: 12..=26.
    cluster_bits: u32,
    /// log2 of the number of entries in one table: 9..=27.
    table_bits: u32,
}

/// Where a guest offset is found: slot of the L1 table, slot of its L2 table, byte in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// Slot in the L1 table.
    pub l1: L1Index,
    /// Slot in the L2 table that the L1 slot names.
    pub l2: L2Index,
    /// Byte in the cluster that the L2 slot names.
    pub within_cluster: u64,
}

#[expect(
    clippy::arithmetic_side_effects,
    reason = "every shift is by cluster_bits + 2 * table_bits <= 80, checked where it can reach 64"
)]
impl Geometry {
    /// Smallest legal cluster, 4 KiB.
    pub const MIN_CLUSTER_SIZE_BYTES: u32 = 1 << 12;
    /// Largest legal cluster, 64 MiB.
    pub const MAX_CLUSTER_SIZE_BYTES: u32 = 1 << 26;
    /// Largest legal table, 16 clusters.
    pub const MAX_TABLE_SIZE_CLUSTERS: u32 = 16;

    /// The shape with this cluster size in bytes and this table size in clusters, if it is legal.
    // spec: QED-HDR-03, QED-HDR-04, QED-MAP-03
    #[must_use]
    pub const fn new(cluster_size_bytes: u32, table_size_clusters: u32) -> Option<Self> {
        let cluster_ok = cluster_size_bytes.is_power_of_two()
            && cluster_size_bytes >= Self::MIN_CLUSTER_SIZE_BYTES
            && cluster_size_bytes <= Self::MAX_CLUSTER_SIZE_BYTES;
        let table_ok = table_size_clusters.is_power_of_two()
            && table_size_clusters <= Self::MAX_TABLE_SIZE_CLUSTERS;
        if !cluster_ok || !table_ok {
            return None;
        }
        let cluster_bits = cluster_size_bytes.trailing_zeros();
        let table_bits = cluster_bits + table_size_clusters.trailing_zeros() - 3;
        Some(Self { cluster_bits, table_bits })
    }

    /// log2 of the cluster size in bytes.
    #[must_use]
    pub const fn cluster_bits(self) -> u32 {
        self.cluster_bits
    }

    /// Bytes in one cluster.
    #[must_use]
    pub const fn cluster_size_bytes(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Clusters in one table.
    #[must_use]
    pub const fn table_size_clusters(self) -> u64 {
        1 << (self.table_bits + 3 - self.cluster_bits)
    }

    /// Bytes in one table.
    #[must_use]
    pub const fn table_size_bytes(self) -> u64 {
        1 << (self.table_bits + 3)
    }

    /// Entries in one table.
    // spec: QED-TBL-01
    #[must_use]
    pub const fn table_entries(self) -> u64 {
        1 << self.table_bits
    }

    /// Guest bytes that one L2 table maps.
    #[must_use]
    pub const fn l2_coverage_bytes(self) -> u64 {
        1 << (self.table_bits + self.cluster_bits)
    }

    /// Largest virtual disk in bytes that the two levels of tables can map.
    ///
    /// Saturates at `u64::MAX` rounded down to a sector: the formula reaches 2^80.
    // spec: QED-MAP-02
    #[must_use]
    pub const fn max_image_size_bytes(self) -> u64 {
        let bits = self.cluster_bits + 2 * self.table_bits;
        if bits >= 64 { !511 } else { 1 << bits }
    }

    /// Splits a guest offset into table slots; none beyond what the tables can map.
    // spec: QED-MAP-01
    #[must_use]
    pub const fn lookup(self, at: GuestOffset) -> Option<Lookup> {
        let cluster = at.get() >> self.cluster_bits;
        let l1 = cluster >> self.table_bits;
        if l1 >= self.table_entries() {
            return None;
        }
        Some(Lookup {
            l1: L1Index::new(l1),
            l2: L2Index::new(cluster & (self.table_entries() - 1)),
            within_cluster: at.get() & (self.cluster_size_bytes() - 1),
        })
    }

    /// The guest offset that two table slots stand for; none when it exceeds 64 bits.
    #[must_use]
    pub const fn guest_offset(self, l1: L1Index, l2: L2Index) -> Option<GuestOffset> {
        let shift = self.table_bits + self.cluster_bits;
        if l1.get() > u64::MAX >> shift || l2.get() >= self.table_entries() {
            return None;
        }
        Some(GuestOffset::new((l1.get() << shift) | (l2.get() << self.cluster_bits)))
    }

    /// The guest cluster that holds `at`.
    #[must_use]
    pub const fn guest_cluster(self, at: GuestOffset) -> GuestCluster {
        GuestCluster::new(at.get() >> self.cluster_bits)
    }

    /// First byte of a guest cluster; none when it exceeds 64 bits.
    #[must_use]
    pub const fn guest_cluster_offset(self, cluster: GuestCluster) -> Option<GuestOffset> {
        if cluster.get() > u64::MAX >> self.cluster_bits {
            return None;
        }
        Some(GuestOffset::new(cluster.get() << self.cluster_bits))
    }

    /// The host cluster that starts at `at`: none unless `at` is cluster-aligned and not 0.
    // spec: QED-TBL-03
    #[must_use]
    pub const fn host_cluster(self, at: HostOffset) -> Option<HostCluster> {
        if at.get() & (self.cluster_size_bytes() - 1) != 0 {
            return None;
        }
        HostCluster::new(at.get() >> self.cluster_bits)
    }

    /// First byte of a host cluster; saturates for a cluster that no 64-bit offset reaches.
    #[must_use]
    pub const fn host_offset(self, cluster: HostCluster) -> HostOffset {
        if cluster.get() > u64::MAX >> self.cluster_bits {
            return HostOffset::new(!(self.cluster_size_bytes() - 1));
        }
        HostOffset::new(cluster.get() << self.cluster_bits)
    }

    /// Clusters that hold `len` bytes, the last one perhaps in part.
    #[must_use]
    pub const fn clusters_for(self, len: u64) -> ClusterCount {
        // A shift: the compiler does not know that the divisor is a power of two.
        let whole = len >> self.cluster_bits;
        let rest = len & (self.cluster_size_bytes() - 1);
        ClusterCount::new(if rest == 0 { whole } else { whole + 1 })
    }

    /// L1 slots that a virtual disk of `image_size` bytes uses.
    #[must_use]
    pub const fn l1_entries_for(self, image_size: u64) -> u64 {
        image_size.div_ceil(self.l2_coverage_bytes())
    }

    /// Whether QEMU up to 10.0 opens images of this shape.
    ///
    /// Its size computation wraps where 3 log2(cluster) + 2 log2(table) reaches 70, and it refuses
    /// tables of one cluster.
    #[must_use]
    pub const fn opens_in_qemu(self) -> bool {
        let table_clusters_bits = self.table_bits + 3 - self.cluster_bits;
        table_clusters_bits >= 1 && 3 * self.cluster_bits + 2 * table_clusters_bits < 70
    }
}
