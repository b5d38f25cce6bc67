//! Open, read, write, allocate and map QED disk images from any number of threads.
//!
//! [`Image`] is the facade of a virtual machine monitor: `read_at`, `write_at`, `write_zeroes`,
//! `flush`, `maintain` and `close`, all through `&self` except the last. [`Request`] is what it is
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

mod alloc;
mod amend;
mod backing;
mod compat;
mod consistency;
mod create;
mod cross_links;
mod drain;
mod end_in_use;
mod error;
mod extents;
mod fill;
mod flush;
mod header_sector;
mod image;
mod in_flight;
mod journal;
mod l1;
mod l2_cache;
mod map;
mod marks;
mod mode;
mod options;
mod pieces;
mod raw_file;
mod read_only;
mod request;
mod resize;
mod runs;
mod set_backing;
mod slice;
mod stored_format;
mod superblock;
mod sync;
mod turn;
mod write;

pub use amend::amend;
pub use backing::{
    BackingError, BackingFile, BackingFormat, BackingGate, BackingRequest, GateError, GivenBacking,
    GuestExtent, GuestExtentKind, RefuseBacking, read_below,
};
pub use consistency::Consistency;
pub use create::{
    CreateBacking, CreateOptions, DEFAULT_RING_LEN_BYTES, Identity, Layout, NewHeaderArea, create,
    header_area,
};
pub use error::{
    AmendError, CorruptTable, CreateError, ImageError, IoAction, OpenError, ResizeError,
    SetBackingError,
};
pub use extents::Extents;
pub use image::Image;
pub use journal::{JournalReplay, ShownReplay, replay_journal, show_replayed};
pub use map::{Extent, ExtentKind};
pub use mode::{describe_header, read_header};
pub use options::{
    DEFAULT_CACHE_LIMIT_BYTES, LockPolicy, ReadContext, RecoveryHook, RecoveryPolicy, WriteContext,
};
pub use raw_file::RawFile;
pub use read_only::ReadOnlyImage;
pub use request::{Allocation, Prepared, Request};
pub use resize::Shrink;
pub use stored_format::{StoredFormat, read_stored_format};
