//! An image that was not closed, as it will be once its journal is replayed: for readers, which
//! write nothing.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

use qed_io::{Growth, ImageLock, LockError, RunKind, Storage, StorageRun};
use qed_journal::Overlay;
use qed_spec::{Features, HEADER_LEN_BYTES, HostOffset};

use crate::durability::log::recovery::{JournalReplay, read};
use crate::error::OpenError;
use crate::head::mode::{FoundHead, Mode, is_active};
use crate::head::sector::{HeaderSector, storage_len};

/// Runs of table slots that a reader keeps in memory, some 200 MiB: a ring with more wants to be
/// replayed by a writer first.
const RUNS_MAX: usize = 1 << 22;

/// Runs with patched slots are told in pieces of this size, as tables are read.
const PIECE: u64 = 4096;

/// Table slots are patched whole.
const SLOT_LEN: u64 = 8;

/// An image as a replay of its journal will leave it.
#[derive(Debug)]
pub struct ShownReplay {
    /// The view, for readers.
    pub storage: Arc<dyn Storage>,
    /// What waits in the journal.
    pub waiting: JournalReplay,
}

/// Shows the image in `storage` as it is once its journal is replayed, JOURNAL_ACTIVE clear; none
/// where there is nothing to replay. Nothing is written, and the view takes no writes.
///
/// # Errors
/// As [`crate::replay_journal`], and a journal that takes too much memory.
// spec: QED-JRN-23
pub fn show_replayed(storage: &Arc<dyn Storage>) -> Result<Option<ShownReplay>, OpenError> {
    let file_len = storage_len(&**storage)?;
    if !is_active(HeaderSector::read(&**storage, file_len)?.header()) {
        return Ok(None);
    }
    let head = FoundHead::read(&**storage)?;
    let header = head.header();
    let Mode::Journal(found) = &head.mode else { return Ok(None) };
    let recovery = read(storage, header, found)?;
    let size = recovery.physical_size().unwrap_or_default().get();
    let len = size.saturating_mul(header.geometry().cluster_size_bytes()).max(file_len);
    let mut fields = *header.fields();
    fields.features.remove(Features::JOURNAL_ACTIVE);
    let header = header.with_fields(fields, len)?.encode();
    let waiting = JournalReplay::of(&recovery);
    let overlay = recovery.overlay(RUNS_MAX)?;
    let view = Replayed { storage: storage.clone(), overlay, len, header };
    Ok(Some(ShownReplay { storage: Arc::new(view), waiting }))
}

/// The view.
#[derive(Debug)]
struct Replayed {
    storage: Arc<dyn Storage>,
    overlay: Overlay,
    /// What recovery will make the length.
    len: u64,
    /// The header that recovery will write.
    header: [u8; HEADER_LEN_BYTES],
}

impl Replayed {
    /// Reads with zeros where the file has yet to grow.
    fn read_file(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let there = self.storage.len()?.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
        let (there, missing) = buf.split_at_mut(there);
        missing.fill(0);
        if there.is_empty() { Ok(()) } else { self.storage.read_at(there, offset) }
    }

    /// Reads whole slots and patches them.
    fn read_slots(&self, buf: &mut [u8], offset: u64, end: u64) -> io::Result<()> {
        let start = offset - offset % SLOT_LEN;
        let len = end.next_multiple_of(SLOT_LEN) - start;
        let mut slots = vec![0; usize::try_from(len).map_err(|_| ErrorKind::OutOfMemory)?];
        self.read_file(&mut slots, start)?;
        self.overlay.patch(&mut slots, HostOffset::new(start));
        let from = usize::try_from(offset - start).expect("below 8");
        buf.copy_from_slice(&slots[from..from + buf.len()]);
        Ok(())
    }
}

impl Storage for Replayed {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(ErrorKind::UnexpectedEof)?;
        if self.overlay.touches(offset, end) {
            self.read_slots(buf, offset, end)?;
        } else {
            self.read_file(buf, offset)?;
        }
        let header = usize::try_from(offset).ok().and_then(|from| self.header.get(from..));
        if let Some(header) = header {
            let len = header.len().min(buf.len());
            buf[..len].copy_from_slice(&header[..len]);
        }
        Ok(())
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let left = self.len.saturating_sub(at);
        let piece_end = (at - at % PIECE).saturating_add(PIECE);
        let touched = self.overlay.next_touched(at).unwrap_or(u64::MAX);
        if touched < piece_end {
            return Ok(StorageRun { len: left.min(piece_end - at), kind: RunKind::Data });
        }
        let touched = touched - touched % PIECE;
        let run = match self.storage.run_at(at)? {
            // The file has yet to grow to here.
            StorageRun { len: 0, .. } => StorageRun { len: left, kind: RunKind::Hole },
            run => run,
        };
        Ok(StorageRun { len: run.len.min(left).min(touched - at), kind: run.kind })
    }

    fn allocated_len(&self) -> io::Result<u64> {
        self.storage.allocated_len()
    }

    fn growth(&self) -> Growth {
        self.storage.growth()
    }

    fn lock(&self, lock: ImageLock) -> Result<(), LockError> {
        self.storage.lock(lock)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write_zeroes(&self, _: Range<u64>) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn punch_hole(&self, _: Range<u64>) -> io::Result<bool> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }
}
