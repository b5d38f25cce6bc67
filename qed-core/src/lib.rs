//! Open, read, write, allocate and map QED disk images from any number of threads.
//!
//! [`Image`] is the facade of a virtual machine monitor: `read_at`, `write_at`, `write_zeroes`,
//! `flush`, `maintain` and `close`, all through `&self`. [`Request`] is what it is
//! built on: map a range or prepare an allocating write, do the data I/O yourself, then commit.
//! [`ReadOnlyImage`] has no way to write. No operating-system call is made here: bytes come from a
//! [`qed_io::Storage`], backing files from the caller's [`BackingGate`].
//!
//! ```
//! use std::sync::Arc;
//! use qed_core::{
//!     CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
//! };
//! use qed_io::MemoryStorage;
//! use qed_spec::GuestOffset;
//!
//! let storage = Arc::new(MemoryStorage::default());
//! create(&*storage, &CreateOptions::new(1 << 30))?;
//! let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
//! let image = Image::open(storage, &context)?;
//! image.write_at(b"hello", GuestOffset::new(1 << 20))?;
//! image.flush()?;
//! let mut buf = [0; 5];
//! image.read_at(&mut buf, GuestOffset::new(1 << 20))?;
//! assert_eq!(&buf, b"hello");
//! image.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod backing;
mod change;
mod data;
mod durability;
mod error;
mod head;
mod image;
mod map;
mod options;
mod ownership;
mod space;
mod sync;
#[cfg(feature = "test-utils")]
pub mod testing;

pub use backing::{BackingFormat, CreateBacking};
pub use data::disk::{
    BackingError, BackingGate, BackingRequest, GateError, GivenBacking, GuestExtent,
    GuestExtentKind, RefuseBacking, VirtualDisk, read_backing,
};
pub use data::raw::RawFile;
pub use durability::log::recovery::{JournalReplay, replay_journal};
pub use durability::log::replayed::{ShownReplay, show_replayed};
pub use error::{
    AmendError, CorruptTable, CreateError, ImageError, IoAction, OpenError, PendingLogError,
    ResizeError, SetBackingError,
};
pub use head::consistency::Consistency;
pub use head::create::{
    CreateOptions, DEFAULT_RING_LEN_BYTES, Identity, Layout, NewHeaderArea, create, header_area,
};
pub use head::mode::{describe_header, read_header, read_owner};
pub use image::Image;
pub use image::allocation::Allocation;
pub use image::amend::amend;
pub use image::amend::lower_l1::lower_l1;
pub use image::compact::{CompactOptions, CompactStep, Compacted, Compaction, HeldBack};
pub use image::discard::SpaceUsage;
pub use image::extents::Extents;
pub use image::io::ZeroMode;
pub use image::read_only::ReadOnlyImage;
pub use image::request::{Prepared, Request};
pub use image::resize::Shrink;
pub use map::mapping::{Extent, ExtentKind};
pub use options::{
    DEFAULT_CACHE_LIMIT_BYTES, DiscardMode, LockPolicy, ReadContext, RecoveryHook, RecoveryPolicy,
    WriteContext,
};
pub use ownership::{Keeps, Ownership, PendingLost};
pub use qed_layout::{Checked, CrashLeft, DirtyBits, Recovered};
