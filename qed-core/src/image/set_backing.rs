//! Changing what the header says of the backing file, as `rebase -u` does.

use std::sync::atomic::Ordering;

use qed_spec::{
    BackingName, Features, HEADER_LEN_BYTES, Header, HostOffset, SectionType, StoredBackingFormat,
};

use crate::data::disk::BackingFormat;
use crate::durability::lock::Turn;
use crate::error::{ImageError, IoAction, SetBackingError};
use crate::head::create::CreateBacking;
use crate::head::superblock::OpenSuperblock;
use crate::image::Image;

/// Names lie below this offset: what follows is kept for the extension superblocks.
const NAMES_END: u64 = 8192;

impl Image {
    /// Records another backing file and its format, or none; the content of the virtual disk is not
    /// looked at.
    ///
    /// The image goes on reading from the backing file it was opened with. The new name is
    /// durable in bytes that the old header does not use before the one sector write that names
    /// it, so a crash leaves either the old or the new one. A format other than raw is stored after
    /// that: until then the image says of neither name which format it has.
    ///
    /// # Errors
    /// A bad name, no room beside the old one, or a failed write.
    // spec: QED-BACK-06, QED-SB-15
    pub fn set_backing(&self, backing: Option<&CreateBacking>) -> Result<(), SetBackingError> {
        let mut turn = self.writer.turn();
        if backing.is_some() {
            self.view.is_backed.store(true, Ordering::Release);
            self.give_back_kept();
        }
        self.flush_in_turn(&mut turn)?;
        self.empty_log()?;
        let stored = match backing {
            Some(CreateBacking { name, format: BackingFormat::Named(format) }) => {
                Some(StoredBackingFormat::new(format, BackingName::new(name)?)?)
            }
            _ => None,
        };
        let storage = &*self.view.tables.storage;
        let file_len = crate::image::read_only::storage_len(storage)?;
        let mut sector = self.view.sector();
        let old = *sector.header();
        let header = match backing {
            None => old.with_backing_name_at(None, file_len)?,
            Some(backing) => {
                let name = BackingName::new(&backing.name)?.as_bytes();
                let (offset, len) = room_for(&old, name.len() as u64)?;
                let at = HostOffset::new(offset.into());
                let written = storage.write_at(name, at.get());
                written.map_err(ImageError::io(IoAction::WriteHeader, at))?;
                sector.patch(at.get(), name);
                self.sync(&mut turn)?;
                let header = old.with_backing_name_at(Some((offset, len)), file_len)?;
                let mut fields = *header.fields();
                let raw = backing.format == BackingFormat::Raw;
                fields.features.set(Features::BACKING_FORMAT_NO_PROBE, raw);
                header.with_fields(fields, file_len)?
            }
        };
        sector.write(storage, header)?;
        drop(sector);
        self.sync(&mut turn)?;
        self.store_format(&mut turn, stored.as_ref())?;
        self.view.set_backing_name(backing.map(|backing| backing.name.clone()));
        Ok(())
    }

    /// Stores the format of the backing file in the superblock, or that none is stored; durable
    /// when it returns. A classic image has no place for it. Nothing is written where nothing
    /// changes.
    fn store_format(
        &self,
        turn: &mut Turn,
        stored: Option<&StoredBackingFormat<'_>>,
    ) -> Result<(), ImageError> {
        self.settle_superblock(turn)?;
        let storage = &*self.view.tables.storage;
        let write = |superblock: &mut OpenSuperblock| {
            superblock.write(storage, |builder| match stored {
                Some(stored) => builder.set_backing_format(stored),
                None => {
                    builder.remove_section(SectionType::BACKING_FORMAT);
                    Ok(())
                }
            })
        };
        if let Some(marks) = &mut turn.marks {
            write(marks.superblock_mut())?;
            return self.sync(turn);
        }
        if let Some(keeper) = &self.writer.keeper {
            let mut superblock = keeper.superblock();
            write(&mut superblock)?;
            self.sync_storage()?;
            superblock.settle();
        }
        Ok(())
    }
}

/// A place for a name of `len` bytes that does not touch the one that `header` has.
fn room_for(header: &Header, len: u64) -> Result<(u32, u32), SetBackingError> {
    let area = header.header_area_len_bytes();
    let no_room = SetBackingError::NoRoom { area, len };
    let first = HEADER_LEN_BYTES as u64;
    let (old_start, old_end) = header
        .backing_name_place()
        .map_or((first, first), |(at, len)| (at.into(), u64::from(at) + u64::from(len)));
    let offset = if first + len <= old_start || old_end <= first { first } else { old_end };
    if offset + len > area.min(NAMES_END) {
        return Err(no_room);
    }
    match (u32::try_from(offset), u32::try_from(len)) {
        (Ok(offset), Ok(len)) => Ok((offset, len)),
        _ => Err(no_room),
    }
}
