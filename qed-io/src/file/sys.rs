//! The system calls that no safe wrapper has: BLKDISCARD, and transfers from and to memory that others
//! may change.
//!
//! Owns the form of their arguments; knows nothing of ranges and of what a device can do.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

use crate::pieces::{Piece, PieceMut};

/// The most pieces that one call takes (`IOV_MAX`).
const PIECES_PER_CALL: usize = 1024;

/// `_IO(0x12, 119)` of `linux/fs.h`.
const BLKDISCARD: Opcode = opcode::none(0x12, 119);

/// First byte and length, as the kernel copies them from where the argument points.
type ByteRange = [u64; 2];

/// Tells a block device that the content of `len` bytes from `start` is not wanted any more: whole logical
/// blocks inside the device.
///
/// # Errors
/// The kernel's; for what is no block device, and for a device that cannot, one that says so.
#[expect(unsafe_code, reason = "a call whose argument the compiler cannot check")]
pub(super) fn discard(device: BorrowedFd<'_>, start: u64, len: u64) -> Result<(), Errno> {
    // SAFETY: the number is that of the kernel's interface, which never changes. Its argument is the
    // address of two u64, which is what a `ByteRange` is, and the kernel only reads them.
    let call = unsafe { Setter::<BLKDISCARD, ByteRange>::new([start, len]) };
    // SAFETY: the kernel reads the 16 bytes of the argument, which live until the call returns, and
    // writes no memory of this program: what it changes are bytes of the device, and of the page cache,
    // which are nobody's memory here, since this crate maps no file. Of a descriptor that is no block
    // device it takes the number for none of its calls: 0x12 is the kernel's letter for those of block
    // devices.
    unsafe { ioctl(device, call) }
}

/// Fills the first bytes of `pieces` from `offset`; how many.
///
/// # Errors
/// The kernel's.
#[expect(unsafe_code, reason = "a call that writes to addresses")]
pub(super) fn read(
    fd: BorrowedFd<'_>,
    pieces: &mut [PieceMut<'_>],
    offset: u64,
) -> Result<usize, Errno> {
    let (fd, at) = (fd.as_raw_fd(), offset_of(offset)?);
    if let [one] = pieces {
        // SAFETY: the kernel writes at most `one.len()` bytes from its address on. They are a slice that is
        // borrowed for writing until the call returns, or memory that is valid for writes by the kernel
        // meanwhile, as `SharedSlice::new` was promised; of that nobody has a reference.
        return moved(unsafe { libc::pread(fd, one.address().cast(), one.len(), at) });
    }
    let pieces = pieces.iter_mut().take(PIECES_PER_CALL);
    let slices: Vec<_> = pieces.map(|piece| slice(piece.address().cast(), piece.len())).collect();
    // SAFETY: `slices` lives until the call returns and has the number of entries that is told. What the
    // kernel writes to are the bytes that each names, for which holds what is said above.
    moved(unsafe { libc::preadv(fd, slices.as_ptr(), count(&slices), at) })
}

/// Writes the first bytes of `pieces` to `offset`; how many.
///
/// # Errors
/// The kernel's.
#[expect(unsafe_code, reason = "a call that reads from addresses")]
pub(super) fn write(fd: BorrowedFd<'_>, pieces: &[Piece<'_>], offset: u64) -> Result<usize, Errno> {
    let (fd, at) = (fd.as_raw_fd(), offset_of(offset)?);
    if let [one] = pieces {
        // SAFETY: the kernel reads at most `one.len()` bytes from its address on, and writes no memory of
        // this program. They are a slice that is borrowed until the call returns, or memory that is valid
        // for reads by the kernel meanwhile, as `SharedSlice::new` was promised.
        return moved(unsafe { libc::pwrite(fd, one.address().cast(), one.len(), at) });
    }
    let pieces = pieces.iter().take(PIECES_PER_CALL);
    let slices: Vec<_> =
        pieces.map(|piece| slice(piece.address().cast_mut().cast(), piece.len())).collect();
    // SAFETY: `slices` lives until the call returns and has the number of entries that is told. The kernel
    // only reads what they name, for which holds what is said above.
    moved(unsafe { libc::pwritev(fd, slices.as_ptr(), count(&slices), at) })
}

const fn slice(address: *mut libc::c_void, len: usize) -> libc::iovec {
    libc::iovec { iov_base: address, iov_len: len }
}

fn count(slices: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(slices.len()).expect("at most 1024")
}

fn offset_of(offset: u64) -> Result<libc::off_t, Errno> {
    libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)
}

/// What a call says that gives -1 for an error.
fn moved(result: libc::ssize_t) -> Result<usize, Errno> {
    let error = || Errno::from_raw_os_error(nix::errno::Errno::last_raw());
    usize::try_from(result).map_err(|_| error())
}
