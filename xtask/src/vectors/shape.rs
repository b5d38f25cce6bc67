//! The numbers of a shape, computed in 128 bits so that nothing can wrap.

/// A legal cluster size in bytes and table size in clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) cluster: u64,
    pub(super) table: u64,
}

impl Shape {
    pub(super) const fn new(cluster: u64, table: u64) -> Self {
        Self { cluster, table }
    }

    /// As it is called in the name of a vector.
    pub(super) fn name(self) -> String {
        let (number, unit) = match self.cluster {
            small if small < 1 << 20 => (small >> 10, "k"),
            large => (large >> 20, "m"),
        };
        format!("{number}{unit}-by-{}", self.table)
    }

    /// Bytes of a table.
    pub(super) fn table_len(self) -> u64 {
        self.cluster * self.table
    }

    /// Entries of a table.
    pub(super) fn entries(self) -> u64 {
        self.table_len() / 8
    }

    /// Bytes of disk below one L2 table.
    pub(super) fn coverage(self) -> u64 {
        self.entries() * self.cluster
    }

    /// Why QEMU does not open images of this shape; none if it does.
    pub(super) fn refused_by_qemu(self) -> Option<&'static str> {
        let bits = 3 * self.cluster.ilog2() + 2 * self.table.ilog2();
        if self.table == 1 {
            Some("QED-QEMU-01: tables of one cluster are refused")
        } else if bits >= 70 {
            Some("QED-QEMU-02: the largest disk of this shape wraps to 0")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_document() {
        let usual = Shape::new(65536, 4);
        assert_eq!((usual.entries(), usual.coverage()), (32768, 2 << 30));
        assert_eq!(usual.name(), "64k-by-4");
        assert_eq!(Shape::new(64 << 20, 16).name(), "64m-by-16");
        assert_eq!(usual.refused_by_qemu(), None);
        assert!(Shape::new(4096, 1).refused_by_qemu().is_some());
        assert!(Shape::new(64 << 20, 16).refused_by_qemu().is_some());
    }
}
