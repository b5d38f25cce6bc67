//! Space that the guest gives up, and how much of it the image knows of.
//!
//! What becomes of space once no table names it is `space/free.rs`.

use std::ops::Range;

use qed_io::Growth;
use qed_spec::{GuestOffset, L2Entry};

use crate::change::Change;
use crate::error::{CorruptTable, ImageError};
use crate::head::sector::storage_len;
use crate::image::Image;
use crate::image::io::ZeroMode;
use crate::options::DiscardMode;
use crate::space::claims::{Claim, Wait};
use crate::space::free::Verdict;

/// Where the space of an open image stands; see [`Image::space_usage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Bytes up to the end of all that was ever handed out: the high-water mark. On a block device of
    /// which that is not known before a sweep, all that it has.
    pub end: u64,
    /// Bytes below the end that no table names, as far as the image has looked; `None` before it did.
    pub free: Option<u64>,
    /// Bytes of the block device that holds the image; `None` for a file, which grows.
    pub capacity: Option<u64>,
    /// What keeps free space from being used again: the image wants a check.
    pub finding: Option<CorruptTable>,
}

impl Image {
    /// Says that nobody wants `len` bytes of the virtual disk from `at` any more: whole clusters give
    /// up their space as [`DiscardMode`] has it, and read as zeros; parts of clusters keep their
    /// bytes. Where discards are ignored nothing changes. Durable after the next [`Image::flush`].
    ///
    /// Over a backing file the clusters become zero clusters, so that it does not show.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    // spec: QED-RW-03
    pub fn discard(&self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        self.head.writing().check()?;
        self.view().check_range(at, len)?;
        if self.space.mode == DiscardMode::Ignore {
            return Ok(());
        }
        let cluster = self.map.geometry.cluster_size_bytes();
        let end = at.get() + len;
        // The last cluster of the disk may be partial and still be given up as a whole.
        let end = if end == self.image_size() { end } else { end - end % cluster };
        match at.get().checked_next_multiple_of(cluster) {
            Some(start) if start < end => {
                self.write_zeroes(GuestOffset::new(start), end - start, ZeroMode::Unmap)
            }
            _ => Ok(()),
        }
    }

    /// Where the space of the image stands.
    ///
    /// # Errors
    /// The length of a block device cannot be read.
    pub fn space_usage(&self) -> Result<SpaceUsage, ImageError> {
        let storage = &**self.head.storage();
        let capacity = match storage.growth() {
            Growth::Zeros => None,
            Growth::Stale => Some(storage_len(storage)?),
        };
        let free = &self.space.alloc.free;
        let (count, verdict) = (free.count(), free.verdict());
        let bytes = count << self.map.geometry.cluster_bits();
        Ok(SpaceUsage {
            end: self.space.alloc.end.bytes(),
            free: (verdict == Verdict::Sound).then_some(bytes),
            capacity,
            finding: match verdict {
                Verdict::Broken(finding) => Some(finding),
                Verdict::Unknown | Verdict::Sound => None,
            },
        })
    }

    /// Makes the first data clusters of a range, which begins and ends with whole clusters of the disk,
    /// zeros without space; how many bytes.
    // spec: QED-FREE-01
    pub(super) fn unmap_some(&self, at: GuestOffset, len: u64) -> Result<u64, ImageError> {
        let (range, clusters) = self.to_claim(at, len);
        let _claim = Claim::take(&self.space.claims, range, Wait::Yes);
        // Under the claim: what a lookup before it found another discard may have given up.
        let mut named = Vec::new();
        let count = self.map.entries(at, clusters, |entry| match entry {
            L2Entry::Data(cluster) => {
                add(&mut named, cluster.get());
                true
            }
            L2Entry::Zero | L2Entry::Unallocated => false,
        })?;
        let Some(count) = count.filter(|count| *count > 0) else { return Ok(0) };
        let change = if self.data.is_backed() {
            Change::zeros(at, count)
        } else {
            Change::unallocated(at, count)
        };
        let room = &mut self.room(count)?;
        change.publish_over(&named, (&self.map, room), &self.space.alloc.free)?;
        if self.space.mode == DiscardMode::PassDown {
            self.space.want_sweep();
        }
        Ok((count << self.map.geometry.cluster_bits()).min(len))
    }
}

/// Adds a cluster to runs of them.
pub(super) fn add(runs: &mut Vec<Range<u64>>, cluster: u64) {
    match runs.last_mut() {
        Some(run) if run.end == cluster => run.end += 1,
        _ => runs.push(cluster..cluster + 1),
    }
}
