//! Holes and cheap zeros: what a file system or device can do beside reading and writing.
//!
//! Owns the calls that a file may not support and the memory of which it does not, so that none is
//! tried twice in vain. Writes no zeros by hand.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use super::sys;
use crate::storage::{RunKind, StorageRun};

/// What one open file can do with its space; everything, until it says otherwise.
#[derive(Debug)]
pub(super) struct Space {
    /// Bytes: the unit in which space is given back or zeroed; a power of two.
    unit: u64,
    seek: Ability,
    punch: Ability,
    zero: Ability,
    discard: Ability,
}

impl Space {
    /// `unit` is 1 for a regular file and the logical block size for a device.
    pub(super) const fn new(unit: u64) -> Self {
        let [seek, punch, zero, discard] = [const { Ability::new() }; 4];
        Self { unit, seek, punch, zero, discard }
    }

    /// The whole units inside `range`; empty if there are none.
    pub(super) fn cheap_part(&self, range: &Range<u64>) -> Range<u64> {
        let end = range.end - range.end % self.unit;
        let start = range.start.checked_next_multiple_of(self.unit).map_or(end, |at| at.min(end));
        start..end
    }

    /// The run from `at` in a file of `len` bytes.
    pub(super) fn run_at(&self, fd: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<StorageRun> {
        let rest = len.saturating_sub(at);
        let run = |kind, end: u64| StorageRun { len: end.saturating_sub(at).min(rest), kind };
        if rest == 0 {
            return Ok(run(RunKind::Data, len));
        }
        match self.seek.attempt(|| rustix::fs::seek(fd, SeekFrom::Data(at))) {
            Ok(Some(data)) if data > at => Ok(run(RunKind::Hole, data)),
            Ok(Some(_)) => {
                let hole = self.seek.attempt(|| rustix::fs::seek(fd, SeekFrom::Hole(at)))?;
                Ok(run(RunKind::Data, hole.unwrap_or(len)))
            }
            Ok(None) => Ok(run(RunKind::Data, len)),
            // No data up to the end.
            Err(Errno::NXIO) => Ok(run(RunKind::Hole, len)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives the space of `range`, whole units inside the length, back; whether that was possible.
    pub(super) fn punch(&self, fd: BorrowedFd<'_>, range: &Range<u64>) -> io::Result<bool> {
        // On a device the kernel punches only where it can promise zeros afterwards, which plain
        // discarding (BLKDISCARD) does not.
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        allocate(&self.punch, fd, mode, range)
    }

    /// Tells a device that nobody wants `range`, whole units inside the length; whether it takes that.
    pub(super) fn discard(&self, fd: BorrowedFd<'_>, range: &Range<u64>) -> io::Result<bool> {
        // In logical blocks: what is less than a granule of the device, the kernel or the device leaves
        // alone.
        let call = || sys::discard(fd, range.start, range.end - range.start);
        Ok(self.discard.attempt(call)?.is_some())
    }

    /// Makes `range`, whole units inside the length, read as zeros; whether that was possible.
    pub(super) fn zero(&self, fd: BorrowedFd<'_>, range: &Range<u64>) -> io::Result<bool> {
        // Zeroing keeps the space, so that later writes there cannot run out of it.
        let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        Ok(allocate(&self.zero, fd, mode, range)? || self.punch(fd, range)?)
    }
}

fn allocate(
    ability: &Ability,
    fd: BorrowedFd<'_>,
    mode: FallocateFlags,
    range: &Range<u64>,
) -> io::Result<bool> {
    let call = || rustix::fs::fallocate(fd, mode, range.start, range.end - range.start);
    Ok(ability.attempt(call)?.is_some())
}

/// One system call that a file may not support.
#[derive(Debug)]
struct Ability {
    lacking: AtomicBool,
}

impl Ability {
    const fn new() -> Self {
        Self { lacking: AtomicBool::new(false) }
    }

    /// Makes the call, unless it is known to be in vain; `None` where it is not supported.
    fn attempt<T>(&self, call: impl FnMut() -> Result<T, Errno>) -> Result<Option<T>, Errno> {
        if self.lacking.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match retry_on_intr(call) {
            Ok(done) => Ok(Some(done)),
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::NOTTY) => {
                self.lacking.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
impl Space {
    /// A file system that can do nothing of it.
    pub(super) fn without_abilities(unit: u64) -> Self {
        let space = Self::new(unit);
        for ability in [&space.seek, &space.punch, &space.zero, &space.discard] {
            ability.lacking.store(true, Ordering::Relaxed);
        }
        space
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_call_that_is_not_supported_is_made_once() {
        for errno in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS, Errno::NODEV, Errno::NOTTY] {
            let ability = Ability::new();
            let mut calls = 0;
            for _ in 0..3 {
                let answer = ability.attempt(|| {
                    calls += 1;
                    Err::<(), _>(errno)
                });
                assert_eq!(answer, Ok(None));
            }
            assert_eq!(calls, 1, "{errno}");
        }
    }

    #[test]
    fn what_cannot_discard_says_so_and_is_unchanged() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &[7; 8192]).unwrap();
        let space = Space::new(512);
        for _ in 0..2 {
            assert!(!space.discard(file.as_fd(), &(0..8192)).unwrap(), "it is no device");
        }
        let mut bytes = [0; 8192];
        rustix::io::pread(&file, &mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 8192]);
    }

    #[test]
    fn other_errors_are_told_and_not_remembered() {
        let ability = Ability::new();
        assert_eq!(ability.attempt(|| Err::<(), _>(Errno::IO)), Err(Errno::IO));
        assert_eq!(ability.attempt(|| Ok(5)), Ok(Some(5)));
    }

    #[test]
    fn the_cheap_part_is_whole_units() {
        let space = Space::new(512);
        let cases = [
            (0..512, 0..512),
            (1..1024, 512..1024),
            (1..1023, 512..512),
            (513..600, 512..512),
            (u64::MAX - 5..u64::MAX, u64::MAX - 511..u64::MAX - 511),
        ];
        for (range, want) in cases {
            assert_eq!(space.cheap_part(&range), want, "{range:?}");
        }
        assert_eq!(Space::new(1).cheap_part(&(3..9)), 3..9);
    }
}
