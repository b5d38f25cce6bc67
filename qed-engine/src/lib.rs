//! Many requests to one image in flight from one thread, by io_uring.
//!
//! [`Engine`] keeps the queue of a device full where calls block, which they do past the page cache
//! (`O_DIRECT`). It does the data I/O between the plan and the commit of a request; what goes where,
//! and in which order, stays with `qed-core`. For an image in the page cache the calls of
//! [`qed_core::Image`] are faster.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("disk.qed");
//! use std::sync::Arc;
//!
//! use qed_core::{CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create};
//! use qed_engine::{Direction, Engine, EngineRequest};
//! use qed_io::{Existing, FileStorage, ImageLock, NewFileOptions};
//!
//! let new = NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
//! let file = Arc::new(FileStorage::create(&path, new)?);
//! create(&*file, &CreateOptions::new(1 << 30))?;
//! let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
//! let image = Arc::new(Image::open(file, &context)?);
//!
//! let mut engine = Engine::for_image(Arc::clone(&image), 32)?;
//! for tag in 0..32 {
//!     let mut buffer = engine.buffer(4096);
//!     buffer.fill(7);
//!     engine.start(EngineRequest { tag, direction: Direction::Write, at: tag << 16, buffer });
//! }
//! while let Some(served) = engine.wait()? {
//!     served.result?;
//! }
//! image.flush()?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod engine;
mod surroundings;
mod target;
mod work;

pub use engine::{Engine, EngineRequest, Served};
pub use qed_io::{AlignedBuf, Direction, StableBuf};
