//! QED disk images in files, for a virtual machine monitor or any other program that needs a disk.
//!
//! [`Image::options`] says how an image is created or opened: which backing files are opened, whether
//! one that was not closed is recovered, which locks are taken. This crate joins what the ones below keep
//! apart: paths and files (`qed-io`), the image (`qed-core`), backing chains (`qed-convert`), and
//! recovery (`qed-check`). It has no rule of its own. For many requests in flight from one thread,
//! `qed-engine` takes [`Image::core`].
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(&folder)?;
//! let disk = qed::Image::options().create("vm.qed", 1 << 30)?;
//! disk.write_at(b"hello", 1 << 20)?;
//! disk.flush()?;
//! disk.close()?;
//!
//! let disk = qed::Image::options().backing(qed::Backing::SameFolder).recover().open("vm.qed")?;
//! let mut buf = [0; 5];
//! disk.read_at(&mut buf, 1 << 20)?;
//! assert_eq!(&buf, b"hello");
//! disk.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod image;
mod inactive;
mod new_file;
mod options;
mod owner;

pub use error::Error;
pub use image::Image;
pub use inactive::Inactive;
pub use new_file::{NewFile, random_identity};
pub use options::{Backing, Mode, Options, RECOVER};
pub use owner::Owner;

pub use qed_core::{
    BackingFormat, BackingGate, DEFAULT_CACHE_LIMIT_BYTES, DiscardMode, GuestExtent,
    GuestExtentKind, Keeps, LockPolicy, PendingLost, Shrink, SpaceUsage,
};
pub use qed_spec::ErrorKind;
