//! Positional reads and writes that do all of it, and the length.
//!
//! Owns the loops over interrupted and short system calls; knows nothing of alignment.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::{Errno, retry_on_intr};

use super::{FileKind, sys};
use crate::pieces::{Piece, PieceMut, pieces_len, pieces_mut_len, with_part, with_part_mut};

/// The end of a transfer, if the kernel can address it.
pub(super) fn end_of(offset: u64, len: usize) -> Option<u64> {
    offset.checked_add(len as u64).filter(|&end| i64::try_from(end).is_ok())
}

/// The length of a file or the capacity of a block device, in bytes.
pub(super) fn length(fd: BorrowedFd<'_>, kind: FileKind) -> io::Result<u64> {
    match kind {
        FileKind::Regular => Ok(u64::try_from(rustix::fs::fstat(fd)?.st_size)
            .expect("the kernel reports no negative length")),
        // The status of a device node has no length; the end of the device is where it is.
        FileKind::BlockDevice => Ok(rustix::fs::seek(fd, SeekFrom::End(0))?),
    }
}

/// The bytes of space that a regular file takes.
pub(super) fn allocated(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    // The status counts in units of 512 bytes, whatever the file system.
    let units = rustix::fs::fstat(fd)?.st_blocks;
    Ok(u64::try_from(units).unwrap_or(0).saturating_mul(512))
}

/// Fills `buf` or fails with `UnexpectedEof`.
pub(super) fn read_exact(fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let len = buf.len();
    let step = |done: usize| rustix::io::pread(fd, &mut buf[done..], offset + done as u64);
    if until_done(len, step)? == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Fills `pieces`, one after the other, or fails with `UnexpectedEof`; a call that fills no whole number
/// of `unit` bytes has met the end.
pub(super) fn read_exact_vectored(
    fd: BorrowedFd<'_>,
    pieces: &mut [PieceMut<'_>],
    offset: u64,
    unit: usize,
) -> io::Result<()> {
    let len = pieces_mut_len(pieces);
    let done = until_done(in_memory(len), |done| match done as u64 {
        0 => sys::read(fd, pieces, offset),
        _ if !done.is_multiple_of(unit) => Ok(0),
        done => with_part_mut(pieces, done, len - done, |rest| sys::read(fd, rest, offset + done)),
    })?;
    if done as u64 == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes all of `buf`.
pub(super) fn write_all(fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<()> {
    let step = |done: usize| rustix::io::pwrite(fd, &buf[done..], offset + done as u64);
    written(until_done(buf.len(), step)?, buf.len())
}

/// Writes all of `pieces`, one after the other.
pub(super) fn write_all_vectored(
    fd: BorrowedFd<'_>,
    pieces: &[Piece<'_>],
    offset: u64,
) -> io::Result<()> {
    let len = pieces_len(pieces);
    let done = until_done(in_memory(len), |done| match done as u64 {
        0 => sys::write(fd, pieces, offset),
        done => with_part(pieces, done, len - done, |rest| sys::write(fd, rest, offset + done)),
    })?;
    written(done, in_memory(len))
}

fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a transfer that the kernel can address")
}

/// Calls `step` with the bytes done so far until `len` are done or it does none; returns how many.
fn until_done(
    len: usize,
    mut step: impl FnMut(usize) -> Result<usize, Errno>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < len {
        match retry_on_intr(|| step(done))? {
            0 => break,
            more => done += more,
        }
    }
    Ok(done)
}

fn written(done: usize, len: usize) -> io::Result<()> {
    if done == len { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `answers` to a transfer of ten bytes; the result and the places it was asked at.
    #[track_caller]
    fn check(answers: &[Result<usize, Errno>], want: Result<usize, Errno>, places: &[usize]) {
        let mut answers = answers.iter();
        let mut asked = Vec::new();
        let got = until_done(10, |done| {
            asked.push(done);
            *answers.next().expect("asked no more often than there are answers")
        });
        let want = want.map_err(|errno| errno.raw_os_error());
        assert_eq!(got.map_err(|error| error.raw_os_error().unwrap()), want);
        assert_eq!(asked, places);
    }

    #[test]
    fn short_and_interrupted_calls_go_on_where_they_stopped() {
        let interrupted = Err(Errno::INTR);
        check(&[Ok(10)], Ok(10), &[0]);
        check(&[Ok(3), Ok(7)], Ok(10), &[0, 3]);
        check(&[interrupted, Ok(3), interrupted, interrupted, Ok(7)], Ok(10), &[0, 0, 3, 3, 3]);
        check(&[Ok(3), Ok(0)], Ok(3), &[0, 3]);
        check(&[Ok(3), Err(Errno::IO)], Err(Errno::IO), &[0, 3]);
    }

    #[test]
    fn no_transfer_ends_past_what_the_kernel_addresses() {
        let last = i64::MAX as u64;
        assert_eq!(end_of(last - 1, 1), Some(last));
        assert_eq!(end_of(last, 1), None);
        assert_eq!(end_of(u64::MAX, 1), None);
    }
}
