//! What a journal needs to know of its image, and what it asks about a record it read.

use qed_spec::{
    ClusterCount, Epoch, Generation, Geometry, HostOffset, ImageUuid, JournalRecord, JournalRing,
    JournalSeed,
};

/// What the owner has read from header and superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSetup {
    /// The section JOURNAL of the current superblock.
    pub ring: JournalRing,
    /// Identity of the image.
    pub uuid: ImageUuid,
    /// Epoch of the current superblock.
    pub epoch: Epoch,
    /// Generation of the current superblock.
    pub generation: Generation,
    /// Cluster and table size.
    pub geometry: Geometry,
    /// Bytes of the header area: no record sets or names anything below.
    pub header_area_len_bytes: u64,
}

/// What a journal that was read claims: the caller says whether it may be so.
///
/// Claims come in the order in which they were made, so a table is linked before its slots are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The image file has this many clusters from here on. The header area is among them, and it
    /// is not less than before.
    PhysicalSize(ClusterCount),
    /// A record is to apply. Its slots and clusters lie behind the header area and inside the
    /// image file.
    Record(JournalRecord),
}

impl JournalSetup {
    pub(crate) fn seed(&self) -> JournalSeed {
        JournalSeed::new(self.uuid, self.epoch)
    }

    /// Bytes of `clusters`, if a file can have as many and they hold the header area.
    pub(crate) fn image_len(&self, clusters: ClusterCount) -> Option<u64> {
        let len = clusters.get().checked_mul(self.geometry.cluster_size_bytes())?;
        (self.header_area_len_bytes..=FILE_LEN_MAX).contains(&len).then_some(len)
    }

    /// Whether the record stays clear of the header area and inside an image of `image_len` bytes.
    // spec: QED-JRN-08
    pub(crate) fn contains(&self, record: &JournalRecord, image_len: u64) -> bool {
        let inside = |start: HostOffset, end: u64| {
            start.get() >= self.header_area_len_bytes && end <= image_len
        };
        let slots = record.slots(self.geometry);
        let clusters = record.clusters(self.geometry);
        slots.is_none_or(|slots| inside(slots.at(), slots.end().get()))
            && clusters.is_none_or(|(first, count)| {
                let start = self.geometry.host_offset(first);
                let len = count.get().saturating_mul(self.geometry.cluster_size_bytes());
                inside(start, start.get().saturating_add(len))
            })
    }
}

/// Bytes of the largest file that there can be.
const FILE_LEN_MAX: u64 = 1 << 63;
