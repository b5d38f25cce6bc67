//! Journal mode: the journal of an open image, and the image as the journal's owner.
//!
//! What a flush commits is in `journal/flush.rs`, opening in `journal/found.rs`, what a crash left in
//! `journal/recovery.rs`. How a ring is written is qed-journal's.

mod flush;
mod found;
mod judge;
mod records;
mod recovery;
mod replayed;

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qed_io::Storage;
use qed_journal::{Owner, TailMove, TailMoved};
use qed_spec::{Features, SectionType};

pub(crate) use crate::durability::log::found::FoundJournal;
pub use crate::durability::log::recovery::{JournalReplay, replay_journal};
pub use crate::durability::log::replayed::{ShownReplay, show_replayed};

use crate::head::sector::HeaderSector;
use crate::head::superblock::OpenSuperblock;

/// What a writable image in journal mode has besides its journal, which its tables know.
#[derive(Debug)]
pub(crate) struct JournalKeeper {
    superblock: Mutex<OpenSuperblock>,
    submitted: Mutex<Submitted>,
}

/// Slices whose entries were given to the journal and may not be committed yet.
#[derive(Debug, Default)]
struct Submitted {
    /// How many batches were submitted so far.
    batches: u64,
    /// The number of the batch, and the slices of which it has entries: those that no commit has
    /// returned for.
    slices: VecDeque<(u64, Vec<u64>)>,
}

impl JournalKeeper {
    fn new(superblock: OpenSuperblock) -> Self {
        Self { superblock: Mutex::new(superblock), submitted: Mutex::default() }
    }

    pub(crate) fn superblock(&self) -> MutexGuard<'_, OpenSuperblock> {
        self.superblock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all that was submitted is committed.
    pub(crate) fn is_committed(&self) -> bool {
        self.submitted().slices.is_empty()
    }

    fn submitted(&self) -> MutexGuard<'_, Submitted> {
        self.submitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The image as the owner of its journal: sector 0 and the superblocks.
///
/// Takes no lock but those of the two, which nobody holds while waiting for a commit or a
/// checkpoint.
struct ImageOwner<'a> {
    storage: &'a dyn Storage,
    sector: &'a Mutex<HeaderSector>,
    superblock: &'a Mutex<OpenSuperblock>,
}

impl ImageOwner<'_> {
    fn write_active(&self, on: bool) -> io::Result<()> {
        let mut sector = self.sector.lock().unwrap_or_else(PoisonError::into_inner);
        let written = sector.write_fields(self.storage, |fields| {
            fields.features.set(Features::JOURNAL_ACTIVE, on);
        });
        written.map_err(io::Error::other)
    }
}

impl Owner for ImageOwner<'_> {
    // spec: QED-JRN-16
    fn set_active(&self) -> io::Result<()> {
        self.write_active(true)?;
        self.storage.flush()
    }

    fn clear_active(&self) -> io::Result<()> {
        self.write_active(false)
    }

    // spec: QED-JRN-20, QED-JRN-24
    fn move_tail(&self, to: TailMove) -> io::Result<TailMoved> {
        let mut superblock = self.superblock.lock().unwrap_or_else(PoisonError::into_inner);
        let written = superblock.write(self.storage, |builder| {
            builder.set_epoch(to.epoch());
            builder.set_section(SectionType::JOURNAL, &to.ring().encode())
        });
        let generation = written.map_err(io::Error::other)?;
        self.storage.flush()?;
        superblock.settle();
        Ok(to.durable(generation))
    }
}
