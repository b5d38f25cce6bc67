//! A disk under an image that does not forgive: whoever reads past its end is wrong, also where the
//! libraries' own disks would answer with zeros.

use qed_core::{BackingError, GuestExtent, VirtualDisk};

/// A disk, read as `VirtualDisk` says that it may be.
#[derive(Debug)]
pub(crate) struct Strict<D>(pub(crate) D);

impl<D: VirtualDisk> VirtualDisk for Strict<D> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let end = offset.checked_add(buf.len() as u64);
        assert!(end.is_some_and(|end| end <= self.len()), "read past the end of the disk below");
        self.0.read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        self.0.extent_at(offset, max_len)
    }
}
