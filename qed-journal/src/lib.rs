//! The metadata journal of an image: a redo log of 8-byte table slots, below any allocator.
//!
//! It is told "these slots get these values, all or none" and makes that durable with one
//! sequential write and one flush; the tables are written later, by a checkpoint. After a crash it
//! says what was committed. It knows neither images nor what a table means, makes no system call
//! and starts no thread.
#![forbid(unsafe_code)]

mod batch;
mod checkpoint;
mod commit;
mod error;
mod format;
mod home;
mod journal;
mod overlay;
mod owner;
mod recovery;
mod scan;
mod setup;
#[cfg(feature = "test-utils")]
mod testing;

pub use batch::{Batch, DataOrder, Ticket};
pub use error::{BatchTooLarge, JournalAction, JournalError, JournalFault, RecoveryError};
pub use format::format;
pub use journal::{Journal, JournalUsage};
pub use overlay::Overlay;
pub use owner::{Owner, TailMove, TailMoved};
pub use recovery::{Recovery, Replayed};
pub use setup::{Claim, JournalSetup};
#[cfg(feature = "test-utils")]
pub use testing::{Opened, TestImage};
