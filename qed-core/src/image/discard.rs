//! Space that the guest gives up, and how much of it the image knows of.

use qed_io::Growth;
use qed_spec::GuestOffset;

use crate::error::ImageError;
use crate::image::Image;

/// Where the space of an open image stands; see [`Image::space_usage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Bytes up to the end of all that was ever handed out: the high-water mark.
    pub end: u64,
    /// Bytes below the end that no table names, as far as the image has looked; `None` before it did.
    pub free: Option<u64>,
    /// Bytes of the block device that holds the image; `None` for a file, which grows.
    pub capacity: Option<u64>,
}

impl Image {
    /// Says that nobody wants `len` bytes of the virtual disk from `at` any more: whole clusters give
    /// up their space as [`crate::DiscardMode`] has it, and read as zeros; parts of clusters keep their
    /// bytes.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn discard(&self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        self.head.writing().check()?;
        self.view().check_range(at, len)
    }

    /// Where the space of the image stands.
    ///
    /// # Errors
    /// The length of a block device cannot be read.
    pub fn space_usage(&self) -> Result<SpaceUsage, ImageError> {
        let storage = &**self.head.storage();
        let capacity = match storage.growth() {
            Growth::Zeros => None,
            Growth::Stale => Some(crate::head::sector::storage_len(storage)?),
        };
        Ok(SpaceUsage { end: self.space.alloc.end.bytes(), free: None, capacity })
    }
}
