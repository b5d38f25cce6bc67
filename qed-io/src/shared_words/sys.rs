//! The mapping of a file as words: made, looked at and given back.

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Words of a file, mapped shared.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

#[expect(unsafe_code, reason = "memory that the kernel gives, and the file that it stands for")]
impl Mapping {
    /// Maps the first words of a file, of which it has at least as many. Not none.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(file: BorrowedFd<'_>, words: usize) -> Result<Self, Errno> {
        let len = words * size_of::<AtomicU64>();
        let how = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so the kernel chooses one where nothing of this program is
        // mapped, and no memory that Rust knows of is changed.
        let start = unsafe { mmap(ptr::null_mut(), len, how, MapFlags::SHARED, file, 0) }?;
        NonNull::new(start.cast()).map(|start| Self { start, words }).ok_or(Errno::NOMEM)
    }

    /// The words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: from `start`, which is aligned to a page, `words` words are mapped for reading and
        // writing until `self` is dropped, and `&self` outlives what is returned. Any bytes are an
        // `AtomicU64`, and others, in this process and elsewhere, that store to the same pages meanwhile
        // are what atomics are for. A file that somebody makes shorter ends the process by a signal,
        // which is no undefined behaviour.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

// SAFETY: the mapping is memory that no thread owns more than another; all access is atomic, and giving
// it back takes the only owner.
#[expect(unsafe_code, reason = "the pointer is to memory that is used by atomics alone")]
unsafe impl Send for Mapping {}

// SAFETY: as above: `&Mapping` gives `&[AtomicU64]` and nothing else.
#[expect(unsafe_code, reason = "the pointer is to memory that is used by atomics alone")]
unsafe impl Sync for Mapping {}

#[expect(unsafe_code, reason = "memory is given back to the kernel")]
impl Drop for Mapping {
    fn drop(&mut self) {
        let len = self.words * size_of::<AtomicU64>();
        // SAFETY: these pages were mapped by `new` and belong to `self` alone; nothing borrows them any
        // more, since `words` borrows `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), len) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own");
    }
}
