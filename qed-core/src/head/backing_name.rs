//! Replacing what the header and the superblock say of the backing file.
//!
//! Step names are those of docs/write-ordering.md.

use qed_spec::{
    BackingName, Features, HEADER_LEN_BYTES, Header, HostOffset, SectionType, StoredBackingFormat,
};

use crate::backing::{BackingFormat, CreateBacking};
use crate::error::{ImageError, IoAction, SetBackingError};
use crate::head::Head;

/// Names lie below this offset: what follows is kept for the extension superblocks.
const NAMES_END: u64 = 8192;

impl Head {
    /// Records another backing file and its format, or none; durable when it returns.
    ///
    /// The new name is durable in bytes that the old header does not use before the one sector write
    /// that names it, so a crash leaves either the old or the new one. A format other than raw is
    /// stored after that: until then the image says of neither name which format it has.
    ///
    /// # Errors
    /// A bad name, no room beside the old one, or a failed write.
    // spec: QED-BACK-06, QED-SB-15
    pub(crate) fn set_backing(
        &self,
        backing: Option<&CreateBacking>,
    ) -> Result<(), SetBackingError> {
        let stored = match backing {
            Some(CreateBacking { name, format: BackingFormat::Named(format) }) => {
                Some(StoredBackingFormat::new(format, BackingName::new(name)?)?)
            }
            _ => None,
        };
        self.write_name(backing)?;
        self.sync()?;
        if self.has_superblock() {
            self.store_format(stored.as_ref())?;
        }
        self.state().backing_name = backing.map(|backing| backing.name.clone());
        Ok(())
    }

    /// Steps "name" and "header".
    fn write_name(&self, backing: Option<&CreateBacking>) -> Result<(), SetBackingError> {
        let storage = &*self.storage;
        let file_len = crate::head::sector::storage_len(storage)?;
        let sector = &mut self.state().sector;
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
                self.sync()?;
                let header = old.with_backing_name_at(Some((offset, len)), file_len)?;
                let mut fields = *header.fields();
                let raw = backing.format == BackingFormat::Raw;
                fields.features.set(Features::BACKING_FORMAT_NO_PROBE, raw);
                header.with_fields(fields, file_len)?
            }
        };
        Ok(sector.write(storage, header)?)
    }

    /// Step "format": stores the format of the backing file in the superblock, or that none is stored.
    /// A classic image has no place for it.
    fn store_format(&self, stored: Option<&StoredBackingFormat<'_>>) -> Result<(), ImageError> {
        self.change_superblock(|builder| match stored {
            Some(stored) => builder.set_backing_format(stored),
            None => {
                builder.remove_section(SectionType::BACKING_FORMAT);
                Ok(())
            }
        })?;
        self.sync()
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
