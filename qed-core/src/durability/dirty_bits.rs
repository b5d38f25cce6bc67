//! The dirty bits of an open image in compat mode: one for each L1 slot whose table a crash may leave in
//! doubt, and the superblock section that says where they lie and where the image ended when they were
//! last all clear.
//!
//! Knows which bytes to write, not when: the order is that of docs/write-ordering.md and the callers'.

use qed_io::Storage;
use qed_spec::{AutoclearFeatures, DirtyBitmap, HostOffset, L1Index, SectionType};

use crate::error::{ImageError, IoAction};
use crate::head::Head;
use crate::head::sections::{FoundBitmap, read_bits};

const SECTOR_LEN_BYTES: usize = 512;

/// The dirty bitmap in memory; owned by the holder of the metadata lock.
#[derive(Debug)]
pub(crate) struct DirtyBits {
    bitmap: DirtyBitmap,
    bytes: Vec<u8>,
    /// Byte after the last that an entry of a table without a dirty bit may name, whatever the file says.
    clear_end: u64,
}

impl DirtyBits {
    /// The bits of an image that ends at `end`; where they were not kept up new ones begin, all clear.
    // spec: QED-DIRTY-06
    pub(crate) fn open(found: &FoundBitmap, head: &Head, end: u64) -> Result<Self, ImageError> {
        if found.is_kept {
            let bytes = read_bits(&**head.storage(), found.bitmap)?.into_bytes();
            return Ok(Self { bitmap: found.bitmap, bytes, clear_end: end });
        }
        let bitmap = found.bitmap.with_epoch_size(end);
        let bytes = vec![0; usize::try_from(bitmap.len_bytes()).unwrap_or(usize::MAX)];
        write(&**head.storage(), bitmap.offset(), &bytes)?;
        head.set_section(SectionType::TABLE_DIRTY, &bitmap.encode())?;
        head.sync()?;
        head.update(|fields| fields.autoclear_features |= AutoclearFeatures::TABLE_DIRTY)?;
        head.sync()?;
        Ok(Self { bitmap, bytes, clear_end: end })
    }

    /// Whether no bit is set.
    pub(crate) fn is_clear(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// L1 slots that there are bits for.
    pub(crate) fn slots(&self) -> u64 {
        self.bitmap.len_bytes() * 8
    }

    /// Sets the bits of slots, those that are not set yet; whether anything was written.
    // spec: QED-DIRTY-02, QED-DIRTY-03
    pub(crate) fn set(
        &mut self,
        storage: &dyn Storage,
        slots: impl Iterator<Item = L1Index>,
    ) -> Result<bool, ImageError> {
        let missing: Vec<(usize, u8)> = slots
            .map(|slot| {
                let bit = self.bitmap.mark_of(slot).expect("every slot of the disk has one");
                (usize::try_from(bit.0).expect("the bitmap is in memory"), bit.1)
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

    /// Clears all bits. From here on they count as clear, even if the write fails.
    ///
    /// NEED_CHECK is durably clear, and so is [`DirtyBits::record_end`] of the present end.
    // spec: QED-DIRTY-04
    pub(crate) fn clear(&mut self, storage: &dyn Storage) -> Result<(), ImageError> {
        let clear = vec![0; self.bytes.len()];
        let written = self.write_changed(storage, &clear);
        self.bytes = clear;
        written
    }

    /// Records that entries below `end` are in tables that are not going to have a dirty bit; whether
    /// the superblock was written.
    // spec: QED-DIRTY-05
    pub(crate) fn record_end(&mut self, head: &Head, end: u64) -> Result<bool, ImageError> {
        self.clear_end = end;
        if self.bitmap.epoch_size() == end {
            return Ok(false);
        }
        let bitmap = self.bitmap.with_epoch_size(end);
        head.set_section(SectionType::TABLE_DIRTY, &bitmap.encode())?;
        self.bitmap = bitmap;
        Ok(true)
    }

    /// The end that the file's superblock has, or will have after a flush.
    pub(crate) fn recorded_end(&self) -> u64 {
        self.bitmap.epoch_size()
    }

    /// The end that the superblock must have, durably, before the first bit is set: tables without a
    /// bit now may name all that is there.
    // spec: QED-DIRTY-05
    pub(crate) fn wanted_end(&self) -> Option<u64> {
        (self.is_clear() && self.recorded_end() < self.clear_end).then_some(self.clear_end)
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

fn write(storage: &dyn Storage, at: HostOffset, bytes: &[u8]) -> Result<(), ImageError> {
    storage.write_at(bytes, at.get()).map_err(ImageError::io(IoAction::WriteHeader, at))
}
