//! The three feature bit sets of the header and the names of their bits.

use bitflags::bitflags;

bitflags! {
    /// Incompatible features: an implementation that does not know a set bit must not open the image.
    // spec: QED-FEAT-04, QED-FEAT-05
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Features: u64 {
        /// A backing file is named in the header.
        const BACKING_FILE = 1 << 0;
        /// The tables must be checked before the image is written.
        const NEED_CHECK = 1 << 1;
        /// The backing file is raw: its format must not be probed.
        const BACKING_FORMAT_NO_PROBE = 1 << 2;
        /// The journal holds commits that are not in the tables.
        const JOURNAL_ACTIVE = 1 << 32;
        /// Internal snapshots share clusters.
        const SNAPSHOTS = 1 << 33;
        /// L2 entries may be compressed descriptors.
        const COMPRESSED = 1 << 34;
        /// Data clusters are encrypted.
        const ENCRYPTED = 1 << 35;
        /// Converted in place with data of the old format kept for undo: no foreign writes.
        const CONVERSION_HOLD = 1 << 36;
    }

    /// Compatible features: unknown bits are kept and ignored.
    // spec: QED-FEAT-02, QED-FEAT-07
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct CompatFeatures: u64 {}

    /// Autoclear features: a writer clears the bits it does not know before its first write.
    // spec: QED-FEAT-06
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct AutoclearFeatures: u64 {
        /// The per-table dirty bitmap is maintained.
        const TABLE_DIRTY = 1 << 32;
        /// A stored freelist exists.
        const FREELIST = 1 << 33;
        /// The physical size field is maintained.
        const PHYSICAL_SIZE = 1 << 34;
        /// The journal's epoch is valid.
        const JOURNAL = 1 << 35;
        /// An undo record of an in-place conversion exists.
        const CONVERSION_UNDO = 1 << 36;
        /// The section with the owner of the image is kept up.
        const OWNED = 1 << 37;
    }
}

impl Features {
    /// The bits of the classic format, which every implementation knows.
    pub const CLASSIC: Self =
        Self::BACKING_FILE.union(Self::NEED_CHECK).union(Self::BACKING_FORMAT_NO_PROBE);

    /// The lowest set bit outside `supported`: its number, and its name if the specification has one.
    // spec: QED-FEAT-01
    #[must_use]
    pub fn first_unsupported(self, supported: Self) -> Option<(u32, Option<&'static str>)> {
        let rest = self.difference(supported).bits();
        if rest == 0 {
            return None;
        }
        let bit = rest.trailing_zeros();
        let name = Self::all()
            .iter_names()
            .find_map(|(name, flag)| (flag.bits().trailing_zeros() == bit).then_some(name));
        Some((bit, name))
    }
}
