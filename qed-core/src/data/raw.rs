//! A raw image: the file is the virtual disk. Serves as a backing file and as a source.

use std::sync::Arc;

use qed_io::{PieceMut, RunKind, Storage, pieces_mut_len, with_part_mut};

use crate::data::disk::{BackingError, GuestExtent, GuestExtentKind, VirtualDisk};

/// A raw disk image, read-only.
///
/// The virtual size is the file length when it was opened, rounded up to whole sectors of 512
/// bytes; what lies past the end of the file reads as zeros.
#[derive(Debug)]
pub struct RawFile {
    storage: Arc<dyn Storage>,
    file_len: u64,
}

impl RawFile {
    /// The virtual disk that `storage` is; takes no lock.
    ///
    /// # Errors
    /// The storage's error when its length cannot be read.
    pub fn open(storage: Arc<dyn Storage>) -> std::io::Result<Self> {
        let file_len = storage.len()?;
        Ok(Self { storage, file_len })
    }
}

impl VirtualDisk for RawFile {
    fn len(&self) -> u64 {
        self.file_len.checked_next_multiple_of(512).unwrap_or(self.file_len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        self.read_vectored_at(&mut [PieceMut::Own(buf)], offset)
    }

    fn read_vectored_at(
        &self,
        pieces: &mut [PieceMut<'_>],
        offset: u64,
    ) -> Result<(), BackingError> {
        let len = pieces_mut_len(pieces);
        let stored = self.file_len.saturating_sub(offset).min(len);
        with_part_mut(pieces, stored, len - stored, |past_end| {
            past_end.iter_mut().for_each(PieceMut::fill_zeroes);
        });
        with_part_mut(pieces, 0, stored, |part| self.storage.read_vectored_at(part, offset))
            .map_err(|error| BackingError::new(offset, (&error).into(), error))
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let run = self
            .storage
            .run_at(offset)
            .map_err(|error| BackingError::new(offset, (&error).into(), error))?;
        let left = self.len().saturating_sub(offset);
        let (len, kind) = match run.kind {
            _ if run.len == 0 => (left, GuestExtentKind::Zero),
            RunKind::Data => (run.len, GuestExtentKind::Data { host_offset: offset }),
            RunKind::Hole => (run.len, GuestExtentKind::Zero),
        };
        Ok(GuestExtent { len: len.min(left).min(max_len), depth: 0, kind })
    }

    fn data_storage(&self, _offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        (depth == 0).then_some(&self.storage)
    }
}
