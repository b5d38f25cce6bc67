//! The metadata journal of an image: a redo log of 8-byte table slots, below any allocator.
//!
//! It is told "these slots get these values, all or none" and makes that durable with one
//! sequential write and one flush; the tables are written later, by a checkpoint. After a crash it
//! says what was committed. It knows neither images nor what a table means, makes no system call
//! and starts no thread.
//!
//! - [`Journal`] is open for writing: [`Journal::submit`], [`Journal::commit`],
//!   [`Journal::checkpoint`], [`Journal::quiesce`], and [`Journal::read_at`] to see tables as they
//!   were committed.
//! - [`Recovery`] is what a crash left: it is judged, then shown in memory or written home.
//! - [`Owner`] is the image: it alone writes sector 0 and superblocks, when the journal says so.
//! - With the feature `test-utils` there is `TestImage`, the smallest owner.
//!
//! What lies on disk is section 12 of `docs/format.md`, the order of writes is in
//! `docs/write-ordering.md`.
//!
//! # Example
//!
//! An image that is killed, and opened again:
//!
//! ```
//! # #[cfg(feature = "test-utils")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use qed_io::MemoryStorage;
//! use qed_journal::{Batch, DataOrder, Journal, Recovery, TestImage};
//! use qed_spec::Epoch;
//!
//! let storage = Arc::new(MemoryStorage::default());
//! let image = TestImage::create(storage.clone(), 8)?; // a ring of 8 blocks
//! let journal = Journal::open_clean(storage.clone(), &image.setup()?)?;
//!
//! // Three slots from the tenth on name clusters in a row; the owner sets JOURNAL_ACTIVE first.
//! let records = vec![image.record(10, 3, 2)];
//! let physical_size = image.physical_size(100);
//! let ticket = journal.submit(Batch { records, physical_size, data: DataOrder::Together })?;
//! journal.commit(&ticket, &image)?; // durable: one write, one flush
//! drop(journal);
//!
//! let image = TestImage::open(storage.clone())?;
//! let recovery = Recovery::read(storage, image.setup()?, |claim| Ok(image.allows(claim)))?;
//! assert_eq!(recovery.commits(), 1);
//! let journal = recovery.replay()?.restart(&image, Epoch::new(2))?; // any other than before
//!
//! let mut entry = [0; 8];
//! journal.read_at(&mut entry, image.slot(12))?;
//! assert_eq!(image.value_of(u64::from_le_bytes(entry)), 4);
//! journal.quiesce(&image)?; // tables written, JOURNAL_ACTIVE clear
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "test-utils"))]
//! # fn main() {}
//! ```
#![forbid(unsafe_code)]

mod batch;
mod checkpoint;
mod commit;
mod error;
mod format;
mod home;
mod journal;
mod kind;
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
