//! The system call on a block device that no safe wrapper has: BLKDISCARD.
//!
//! Owns its number and the form of its argument; knows nothing of ranges and of what a device can do.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

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
