//! Where the bytes of a disk image live: files, block devices and memory behind one trait.
//!
//! This crate does I/O and knows no image format. [`Storage`] is the seam: `qed-core`, `qed-check`
//! and `qed-convert` see nothing else of the operating system.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("qed supports 64-bit little-endian Linux only");

mod lock;
mod memory;
mod storage;

pub use lock::{ImageLock, LockError, Permission, PermissionSet};
pub use memory::MemoryStorage;
pub use storage::{Growth, RunKind, Storage, StorageRun};
