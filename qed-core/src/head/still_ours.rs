//! Whether the image that is open is still this program's, where another host may have taken it and no
//! lock says so. Knows what to look at, not when: before each write of sector 0, of a superblock, of
//! tables and of a commit.

use qed_layout::{FirstSector, ReadError, SuperblockBytes};

use crate::error::{ImageError, IoAction};
use crate::head::{Head, State};

/// Sector 0 and both superblocks lie below.
const LOOKED_AT_BYTES: u64 = 16 << 10;

impl Head {
    /// From here on the file is looked at before it is written; not while the head is shared.
    pub(crate) fn look_before_writes(&mut self) {
        self.looks_before_writes = true;
    }

    /// Ends all writing where sector 0 or the superblock is not what this program wrote last: somebody
    /// else has the image now. Asks the file only where locks may not reach everybody.
    ///
    /// # Errors
    /// [`ImageError::NotOurs`], or what kept the file from being read.
    // spec: QED-HAND-05
    pub(crate) fn still_ours(&self) -> Result<(), ImageError> {
        if self.looks_before_writes { self.look(&self.state()) } else { Ok(()) }
    }

    /// As [`Head::still_ours`], with the state that the caller holds.
    pub(super) fn still_ours_in(&self, state: &State) -> Result<(), ImageError> {
        if self.looks_before_writes { self.look(state) } else { Ok(()) }
    }

    fn look(&self, state: &State) -> Result<(), ImageError> {
        let is_ours = self.is_ours(state).map_err(ImageError::read(IoAction::ReadHeader))?;
        if !is_ours {
            self.writing.is_taken();
            return Err(ImageError::NotOurs);
        }
        Ok(())
    }

    fn is_ours(&self, state: &State) -> Result<bool, ReadError> {
        let header = state.sector.header();
        let storage = &*self.storage;
        let area = LOOKED_AT_BYTES.min(header.header_area_len_bytes());
        // Where caches cannot be passed by, what they hold is better than nothing.
        let _ = storage.forget_cached(0..area);
        let sector = FirstSector::read(storage, area)?;
        if !state.sector.is_in_doubt() && sector.bytes() != state.sector.bytes() {
            return Ok(false);
        }
        let Some(superblock) = &state.superblock else { return Ok(true) };
        let Some(found) = SuperblockBytes::read(storage, header)? else { return Ok(false) };
        Ok(superblock.is_current_in(&found))
    }
}
