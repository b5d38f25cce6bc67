//! Where the bytes of a disk image live: files, block devices and memory behind one trait.
//!
//! This crate does I/O and knows no image format. [`Storage`] is the seam: the layers above see
//! nothing else of the operating system.
//!
//! - [`FileStorage`] is a regular file or a block device: positional I/O from any number of
//!   threads, holes, punching, cheap zeroing, `O_DIRECT` with every alignment rule kept inside,
//!   and image locks that QEMU sees and respects.
//! - [`MemoryStorage`] is a vector of bytes, for tests, fuzzing and small images.
//! - With the feature `test-utils` there are three storages that wrap another one: `Recorder`
//!   logs what was written in which order, `Faulty` makes chosen operations fail, and `Gate`
//!   holds one chosen operation until the test lets it go.
//!
//! ```
//! use qed_io::{
//!     Existing, FileOptions, FileStorage, ImageLock, NewFileOptions, RunKind, Storage,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("disk.raw");
//! // An existing target is locked before it is truncated, so a running guest keeps its disk.
//! let file = FileStorage::create(
//!     &path,
//!     NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false },
//! )?;
//! file.set_len(1 << 20)?;
//! file.write_at(b"boot", 510)?;
//! file.flush()?;
//!
//! // While the writer holds its lock, a reader that expects unchanging data is turned away, and
//! // a reader that accepts anything (`qemu-img -U`) is let in.
//! let reader = FileStorage::open(&path, FileOptions::READ_ONLY)?;
//! assert!(reader.lock(ImageLock::READ).is_err());
//! reader.lock(ImageLock::READ_SHARED)?;
//!
//! let mut word = [0; 4];
//! reader.read_at(&mut word, 510)?;
//! assert_eq!(&word, b"boot");
//! assert_eq!(reader.run_at(1 << 19)?.kind, RunKind::Hole);
//! # Ok(())
//! # }
//! ```
//!
//! # Durability
//!
//! Nothing is durable before [`Storage::flush`] returns, and nothing written since the last good
//! flush may be relied on after one that failed.
//!
//! # Locks
//!
//! QEMU guards an image with open-file-description locks on single bytes of the file;
//! [`ImageLock`] says which. They exclude other programs and other [`FileStorage`]s of this one
//! alike; the lock calls that most libraries offer (`flock`, classic POSIX locks) do not.
//!
//! # Unsafe code
//!
//! One call that tells a block device to discard a range, which no safe wrapper has; the mapping of a file
//! in memory ([`SharedWords`]); memory that others
//! change meanwhile, such as a guest's ([`SharedSlice`]): its copies, and the calls that hand the kernel its
//! address; and with the feature `io_uring`, where a ring hands the kernel the address of a buffer
//! (`StableBuf`).

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("qed supports 64-bit little-endian Linux only");

mod file;
mod kind;
mod lock;
mod memory;
mod pieces;
mod shared_words;
mod storage;
#[cfg(feature = "test-utils")]
mod testing;

#[cfg(all(feature = "io_uring", feature = "test-utils"))]
pub use file::SharedBuf;
pub use file::{
    Access, Existing, FileIdentity, FileKind, FileOptions, FileStorage, NewFileOptions, OpenError,
    RefusedKind, effective_user,
};
#[cfg(feature = "io_uring")]
pub use file::{AlignedBuf, Direction, LentMemory, Memory, Ring, StableBuf, Transfer, Transferred};
pub use lock::{Clash, ImageLock, LockError, Permission, PermissionSet};
pub use memory::MemoryStorage;
pub use pieces::{
    Piece, PieceMut, SharedSlice, fill_pieces, pieces_len, pieces_mut_len, show_pieces, with_part,
    with_part_mut,
};
pub use shared_words::SharedWords;
pub use storage::{Growth, RunKind, Storage, StorageRun};
#[cfg(feature = "test-utils")]
pub use testing::{
    Completion, Fault, Faulty, Gate, HeldRequest, Operation, Outcome, Record, Recorder, Repeat,
    Request, RequestKind,
};
