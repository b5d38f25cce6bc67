//! What an image says of how its tables survive a crash: for programs that show or amend it.

use qed_io::Storage;
use qed_spec::{ConsistencyMode, DirtyBitmap, ImageUuid, JournalRing};

use crate::error::OpenError;
use crate::head::mode::{FoundHead, Mode};

/// How the tables of an image survive a crash, and what of it is on disk now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// No superblock: a crash sets all tables in doubt.
    Classic,
    /// Tables are written in place; a crash sets those with a dirty bit in doubt.
    Compat {
        /// The image.
        uuid: ImageUuid,
        /// Where the dirty bits are; none if the last writer did not keep them.
        bitmap: Option<DirtyBitmap>,
        /// Tables with a dirty bit; the bits outlive a clean close and are cleared now and then.
        marked_tables: u64,
    },
    /// Changes of tables go to the journal first; a crash sets none in doubt.
    Journal {
        /// The image.
        uuid: ImageUuid,
        /// Where the journal is.
        ring: JournalRing,
        /// The last writer kept the journal; else the next one begins it anew.
        is_kept: bool,
    },
}

impl Consistency {
    /// Reads the superblock of the image in `storage`, and the dirty bits if it has some.
    ///
    /// # Errors
    /// The rule that the header breaks, a superblock that keeps the image from being written, or
    /// failed I/O.
    // spec: QED-MODE-01
    pub fn read(storage: &dyn Storage) -> Result<Self, OpenError> {
        Ok(match FoundHead::read(storage)?.mode {
            Mode::Classic => Self::Classic,
            Mode::Compat(found) => Self::Compat {
                uuid: found.uuid,
                bitmap: found.kept_bitmap(),
                marked_tables: found.marked_tables(storage)?,
            },
            Mode::Journal(found) => Self::Journal {
                uuid: found.setup.uuid,
                ring: found.setup.ring,
                is_kept: found.is_kept,
            },
        })
    }

    /// The mode as the superblock has it; none for a classic image.
    #[must_use]
    pub const fn mode(&self) -> Option<ConsistencyMode> {
        match self {
            Self::Classic => None,
            Self::Compat { .. } => Some(ConsistencyMode::Compat),
            Self::Journal { .. } => Some(ConsistencyMode::Journal),
        }
    }
}
