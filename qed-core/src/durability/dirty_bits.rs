//! The marks of an open image in compat mode: one bit for each L1 slot whose table a crash may leave
//! in doubt, and the superblock section that says where they lie.
//!
//! Knows which bytes to write, not when: the order is that of docs/write-ordering.md and the callers'.

use qed_io::Storage;
use qed_spec::{DirtyBitmap, HostOffset, L1Index, SectionType};

use crate::error::{ImageError, IoAction};
use crate::head::superblock::OpenSuperblock;

const SECTOR_LEN_BYTES: usize = 512;

/// The dirty bitmap in memory; owned by whoever has the turn to write metadata.
#[derive(Debug)]
pub(crate) struct Marks {
    bitmap: DirtyBitmap,
    bytes: Vec<u8>,
    superblock: OpenSuperblock,
    /// Byte after the last that an entry of an unmarked table may name, whatever the file says.
    unmarked_end: u64,
}

impl Marks {
    /// The bitmap as it is in the file of an image that ends at `end`.
    pub(crate) fn read(
        storage: &dyn Storage,
        bitmap: DirtyBitmap,
        superblock: OpenSuperblock,
        end: u64,
    ) -> Result<Self, ImageError> {
        let bytes = read_marks(storage, &bitmap)?;
        Ok(Self { bitmap, bytes, superblock, unmarked_end: end })
    }

    /// An empty bitmap of an image that ends at `end`, written with its section; durable when it
    /// returns.
    // spec: QED-DIRTY-06
    pub(crate) fn begin(
        storage: &dyn Storage,
        bitmap: DirtyBitmap,
        mut superblock: OpenSuperblock,
        end: u64,
    ) -> Result<Self, ImageError> {
        let bitmap = bitmap.with_epoch_size(end);
        let bytes = vec![0; usize::try_from(bitmap.len_bytes()).unwrap_or(usize::MAX)];
        write(storage, bitmap.offset(), &bytes)?;
        superblock.write_section(storage, SectionType::TABLE_DIRTY, &bitmap.encode())?;
        storage.flush().map_err(ImageError::io(IoAction::Flush, HostOffset::new(0)))?;
        superblock.settle();
        Ok(Self { bitmap, bytes, superblock, unmarked_end: end })
    }

    /// Whether no table is marked.
    pub(crate) fn is_clear(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// L1 slots that there are marks for.
    pub(crate) fn slots(&self) -> u64 {
        self.bitmap.len_bytes() * 8
    }

    /// Marks slots, those that are not marked yet; whether anything was written.
    // spec: QED-DIRTY-02, QED-DIRTY-03
    pub(crate) fn set(
        &mut self,
        storage: &dyn Storage,
        slots: impl Iterator<Item = L1Index>,
    ) -> Result<bool, ImageError> {
        let missing: Vec<(usize, u8)> = slots
            .map(|slot| {
                let mark = self.bitmap.mark_of(slot).expect("every slot of the disk has one");
                (usize::try_from(mark.0).expect("the bitmap is in memory"), mark.1)
            })
            .filter(|(byte, mask)| self.bytes[*byte] & mask == 0)
            .collect();
        if missing.is_empty() {
            return Ok(false);
        }
        let mut bytes = self.bytes.clone();
        missing.iter().for_each(|(byte, mask)| bytes[*byte] |= mask);
        self.write_changed(storage, &bytes)?;
        self.bytes = bytes;
        Ok(true)
    }

    /// Clears all marks. From here on they count as clear, even if the write fails.
    ///
    /// NEED_CHECK is durably clear, and so is [`Marks::set_epoch`] to the present end.
    // spec: QED-DIRTY-04
    pub(crate) fn clear(&mut self, storage: &dyn Storage) -> Result<(), ImageError> {
        let clear = vec![0; self.bytes.len()];
        let written = self.write_changed(storage, &clear);
        self.bytes = clear;
        written
    }

    /// Records that entries below `end` are in tables that are not going to be marked; whether
    /// the superblock was written. Nothing that was written before is in flight: the caller has
    /// flushed since the last write of the superblock.
    // spec: QED-DIRTY-05
    pub(crate) fn set_epoch(
        &mut self,
        storage: &dyn Storage,
        end: u64,
    ) -> Result<bool, ImageError> {
        self.unmarked_end = end;
        if self.bitmap.epoch_size() == end {
            return Ok(false);
        }
        let bitmap = self.bitmap.with_epoch_size(end);
        self.superblock.write_section(storage, SectionType::TABLE_DIRTY, &bitmap.encode())?;
        self.bitmap = bitmap;
        Ok(true)
    }

    /// The end that the file's superblock has, or will have after a flush.
    pub(crate) fn epoch_size(&self) -> u64 {
        self.bitmap.epoch_size()
    }

    /// The end that the superblock must have, durably, before the first mark is set: tables that are
    /// not marked now may name all that is there.
    // spec: QED-DIRTY-05
    pub(crate) fn wanted_epoch(&self) -> Option<u64> {
        (self.is_clear() && self.epoch_size() < self.unmarked_end).then_some(self.unmarked_end)
    }

    /// The superblock, for what else it says.
    pub(crate) fn superblock_mut(&mut self) -> &mut OpenSuperblock {
        &mut self.superblock
    }

    /// Whether the superblock may be written only after a flush.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.superblock.is_unsettled()
    }

    /// A flush has returned.
    pub(crate) fn settle(&mut self) {
        self.superblock.settle();
    }

    /// Writes the sectors in which `bytes` differs from what the file is known to hold.
    fn write_changed(&self, storage: &dyn Storage, bytes: &[u8]) -> Result<(), ImageError> {
        let sectors = bytes.chunks(SECTOR_LEN_BYTES).zip(self.bytes.chunks(SECTOR_LEN_BYTES));
        for (number, (new, old)) in sectors.enumerate() {
            if new != old {
                let within = (number * SECTOR_LEN_BYTES) as u64;
                write(storage, HostOffset::new(self.bitmap.offset().get() + within), new)?;
            }
        }
        Ok(())
    }
}

/// The marks in the file.
pub(crate) fn read_marks(
    storage: &dyn Storage,
    bitmap: &DirtyBitmap,
) -> Result<Vec<u8>, ImageError> {
    let mut bytes = vec![0; usize::try_from(bitmap.len_bytes()).unwrap_or(usize::MAX)];
    let at = bitmap.offset();
    storage.read_at(&mut bytes, at.get()).map_err(ImageError::io(IoAction::ReadHeader, at))?;
    Ok(bytes)
}

fn write(storage: &dyn Storage, at: HostOffset, bytes: &[u8]) -> Result<(), ImageError> {
    storage.write_at(bytes, at.get()).map_err(ImageError::io(IoAction::WriteHeader, at))
}
