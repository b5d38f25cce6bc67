//! I/O past the page cache: every alignment rule of `O_DIRECT` is kept here.
//!
//! The kernel transfers whole sectors between aligned addresses. What does not fit goes through an
//! aligned bounce buffer; a sector that is written in part is read first, and while that goes on
//! its range is held, so that two neighbours in one sector do not lose each other's bytes.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::retry_on_intr;

use super::aligned::{AlignedBuf, is_aligned};
use super::range_locks::{RangeGuard, RangeLocks};
use super::{FileKind, capped, transfer};
use crate::pieces::{Piece, PieceMut, fill_by_copies, pieces_len, show_by_copies};

/// The most bytes that go through a bounce buffer at a time.
const BOUNCE_BYTES: u64 = 1024 * 1024;

/// The rules of one file and the ranges being written.
#[derive(Debug)]
pub(super) struct DirectIo {
    alignment: Alignment,
    kind: FileKind,
    ranges: Arc<RangeLocks>,
}

/// What the kernel asks of a direct transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Bytes: what offset and length are multiples of; a power of two.
    pub(super) sector: u32,
    /// Bytes: what the buffer's address is a multiple of; a power of two.
    pub(super) memory: u32,
}

impl DirectIo {
    pub(super) fn new(alignment: Alignment, kind: FileKind) -> Self {
        Self { alignment, kind, ranges: Arc::default() }
    }

    /// Holds the sectors of `range` against writes until the guard is dropped.
    pub(super) fn hold(&self, range: &Range<u64>) -> RangeGuard<Arc<RangeLocks>> {
        RangeGuard::hold(Arc::clone(&self.ranges), self.sectors(range))
    }

    /// As [`DirectIo::hold`]; none if that would wait.
    #[cfg(feature = "io_uring")]
    pub(super) fn try_hold(&self, range: &Range<u64>) -> Option<RangeGuard<Arc<RangeLocks>>> {
        RangeGuard::try_hold(Arc::clone(&self.ranges), self.sectors(range))
    }

    /// Whether the kernel transfers `len` bytes at this address as they lie.
    pub(super) fn takes(&self, address: *const u8, len: usize, offset: u64) -> bool {
        let is_whole = |number: u64| number.is_multiple_of(self.sector());
        is_whole(offset) && is_whole(len as u64) && address.align_offset(self.memory()) == 0
    }

    /// Fills `buf`, which is not empty, or fails with `UnexpectedEof`.
    pub(super) fn read_at(
        &self,
        fd: BorrowedFd<'_>,
        buf: &mut [u8],
        offset: u64,
    ) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        let sectors = self.sectors(&(offset..end));
        if sectors == (offset..end) && is_aligned(buf, self.memory()) {
            let done = self.read_sectors(fd, buf, offset)?;
            return if done == buf.len() { Ok(()) } else { Err(unexpected_end()) };
        }
        let mut bounce = self.bounce(&sectors);
        let mut at = sectors.start;
        while at < sectors.end {
            let window = &mut bounce[..capped(sectors.end - at, BOUNCE_BYTES)];
            let window_end = at + window.len() as u64;
            let done = self.read_sectors(fd, window, at)?;
            let wanted = at.max(offset)..window_end.min(end);
            if at + (done as u64) < wanted.end {
                return Err(unexpected_end());
            }
            buf[within(&wanted, offset)].copy_from_slice(&window[within(&wanted, at)]);
            at = window_end;
        }
        Ok(())
    }

    /// Writes all of `buf`, which is not empty; the length grows to its end and not to the
    /// sector's.
    pub(super) fn write_at(&self, fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + buf.len() as u64;
        let (_held, cut_to) = self.hold_for_writing(fd, &range)?;
        self.write_pieces(fd, buf, offset)?;
        match cut_to {
            Some(len) => Ok(retry_on_intr(|| rustix::fs::ftruncate(fd, len))?),
            None => Ok(()),
        }
    }

    /// As [`DirectIo::read_at`], without a copy where every piece lies as the kernel wants it.
    pub(super) fn read_vectored_at(
        &self,
        fd: BorrowedFd<'_>,
        pieces: &mut [PieceMut<'_>],
        offset: u64,
    ) -> io::Result<()> {
        if pieces.iter_mut().all(|piece| self.takes(piece.address(), piece.len(), offset)) {
            let sector = index(self.sector());
            return transfer::read_exact_vectored(fd, pieces, offset, sector);
        }
        fill_by_copies(pieces, offset, BOUNCE_BYTES, |buf, at| self.read_at(fd, buf, at))
    }

    /// As [`DirectIo::write_at`], without a copy where every piece lies as the kernel wants it.
    pub(super) fn write_vectored_at(
        &self,
        fd: BorrowedFd<'_>,
        pieces: &[Piece<'_>],
        offset: u64,
    ) -> io::Result<()> {
        if pieces.iter().all(|piece| self.takes(piece.address(), piece.len(), offset)) {
            // Whole sectors: no neighbour loses bytes, and nothing sticks out.
            let _held = self.hold(&(offset..offset + pieces_len(pieces)));
            return transfer::write_all_vectored(fd, pieces, offset);
        }
        show_by_copies(pieces, offset, BOUNCE_BYTES, |buf, at| self.write_at(fd, buf, at))
    }

    /// Holds what a write to `range` touches; the length to cut the file to afterwards, if its
    /// last sector is going to stick out.
    fn hold_for_writing(
        &self,
        fd: BorrowedFd<'_>,
        range: &Range<u64>,
    ) -> io::Result<(RangeGuard<&RangeLocks>, Option<u64>)> {
        let sectors = self.sectors(range);
        let held = self.ranges.hold(sectors.clone());
        let sticks_out = sectors.end > range.end && self.kind == FileKind::Regular;
        if !sticks_out || transfer::length(fd, self.kind)? >= sectors.end {
            return Ok((held, None));
        }
        // Cutting must not hit what others write further out: hold everything up there.
        drop(held);
        let held = self.ranges.hold(sectors.start..u64::MAX);
        let len = transfer::length(fd, self.kind)?;
        Ok((held, (len < sectors.end).then(|| len.max(range.end))))
    }

    /// Writes the first and last sector by reading them first where they are covered in part, and
    /// what is between in whole sectors.
    fn write_pieces(&self, fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        let piece = |range: Range<u64>| &buf[within(&range, offset)];
        let first_whole = offset.next_multiple_of(self.sector());
        let last_whole = end - end % self.sector();
        if offset < first_whole {
            self.write_in_sector(fd, piece(offset..end.min(first_whole)), offset)?;
        }
        if first_whole < last_whole {
            self.write_whole(fd, piece(first_whole..last_whole), first_whole)?;
        }
        if first_whole <= last_whole && last_whole < end {
            self.write_in_sector(fd, piece(last_whole..end), last_whole)?;
        }
        Ok(())
    }

    /// Replaces part of one sector; what the sector has past the end of the file is zeros.
    fn write_in_sector(&self, fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + buf.len() as u64;
        let sector = self.sectors(&range);
        let mut bounce = self.bounce(&sector);
        self.read_sectors(fd, &mut bounce, sector.start)?;
        bounce[within(&range, sector.start)].copy_from_slice(buf);
        transfer::write_all(fd, &bounce, sector.start)
    }

    fn write_whole(&self, fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<()> {
        if is_aligned(buf, self.memory()) {
            return transfer::write_all(fd, buf, offset);
        }
        let mut bounce = self.bounce(&(offset..offset + buf.len() as u64));
        let mut at = offset;
        for part in buf.chunks(bounce.len()) {
            let window = &mut bounce[..part.len()];
            window.copy_from_slice(part);
            transfer::write_all(fd, window, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Reads whole sectors into an aligned buffer up to the end of the file; how many bytes.
    fn read_sectors(&self, fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut buf[done..];
            let got = retry_on_intr(|| rustix::io::pread(fd, &mut *rest, offset + done as u64))?;
            done += got;
            // Part of a sector is what the end of the file leaves; asking on from there would be
            // an unaligned request.
            if got == 0 || !(done as u64).is_multiple_of(self.sector()) {
                break;
            }
        }
        Ok(done)
    }

    /// The whole sectors that contain `range`; saturating, as the kernel refuses that end anyway.
    fn sectors(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start - range.start % self.sector();
        start..range.end.checked_next_multiple_of(self.sector()).unwrap_or(u64::MAX)
    }

    /// A buffer for `sectors`, or for as many of them as go at a time.
    fn bounce(&self, sectors: &Range<u64>) -> AlignedBuf {
        AlignedBuf::new(capped(sectors.end - sectors.start, BOUNCE_BYTES), self.memory())
    }

    pub(super) fn sector(&self) -> u64 {
        self.alignment.sector.into()
    }

    pub(super) fn memory(&self) -> usize {
        self.alignment.memory as usize
    }
}

/// Where the bytes of `range` lie in a buffer that starts at `start`.
fn within(range: &Range<u64>, start: u64) -> Range<usize> {
    index(range.start - start)..index(range.end - start)
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("the range lies in a buffer")
}

fn unexpected_end() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
