//! Files of one file system that share space: whether they can, and the call that makes them.
//!
//! `copy_file_range` is that call. It shares wherever whole blocks can be shared, and would copy
//! elsewhere, so whether they can is found out first.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};

/// How file systems say that they are Btrfs: its subvolumes have device numbers of their own.
const BTRFS: u64 = 0x9123_683e;
/// The most bytes of one call.
const STEP: u64 = 1 << 30;

/// The block size of the file system of `to`, if that shares blocks between files.
pub(super) fn unit(to: BorrowedFd<'_>) -> Option<u64> {
    // A file that takes over its own bytes: nothing if it is empty, an overlap and so not valid if it
    // is not, and not supported where there is no sharing.
    match rustix::fs::ioctl_ficlone(to, to) {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(_) => return None,
    }
    let unit = rustix::fs::fstatfs(to).ok()?.f_bsize;
    u64::try_from(unit).ok().filter(|unit| unit.is_power_of_two())
}

/// Whether two files may lie in one file system, though their device numbers differ.
pub(super) fn may_be_neighbours(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    let is_btrfs =
        |fd| rustix::fs::fstatfs(fd).is_ok_and(|found| u64::try_from(found.f_type) == Ok(BTRFS));
    is_btrfs(a) && is_btrfs(b)
}

/// Makes the bytes of `to` from `at` those of `range` in `from`.
pub(super) fn share(
    from: BorrowedFd<'_>,
    range: Range<u64>,
    to: BorrowedFd<'_>,
    at: u64,
) -> io::Result<()> {
    let (mut source, mut target) = (range.start, at);
    while source < range.end {
        let len = usize::try_from((range.end - source).min(STEP)).unwrap_or(usize::MAX);
        let done = retry_on_intr(|| {
            rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), len)
        })?;
        if done == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
