//! Sector 0: the header with the bytes beside it, read once and rewritten as one sector.
//!
//! One sector is what a disk writes whole or not at all, so every change of the header is one
//! write of these 512 bytes.

use std::io;

use qed_io::Storage;
use qed_layout::{FirstSector, SUPPORTED};
use qed_spec::{
    BackingName, Features, HEADER_SECTOR_LEN_BYTES as SECTOR_LEN_BYTES, Header, HeaderError,
    HeaderFields, HostOffset,
};

use crate::error::{ImageError, IoAction, OpenError};

/// Largest virtual disk that is opened, made or grown to: offsets in it stay below 2^63, which is
/// also where QEMU ends.
pub(crate) const MAX_IMAGE_SIZE_BYTES: u64 = (1 << 63) - 512;

/// Refuses a size beyond [`MAX_IMAGE_SIZE_BYTES`].
pub(crate) fn check_size(image_size: u64) -> Result<(), HeaderError> {
    if image_size > MAX_IMAGE_SIZE_BYTES {
        return Err(HeaderError::ImageSizeTooLarge {
            found: image_size,
            max: MAX_IMAGE_SIZE_BYTES,
        });
    }
    Ok(())
}

/// The header of an open image and the rest of its sector.
#[derive(Debug)]
pub(crate) struct HeaderSector {
    bytes: [u8; SECTOR_LEN_BYTES],
    header: Header,
    /// The last write of the sector failed, so the file may hold what it would have written.
    in_doubt: bool,
}

impl HeaderSector {
    /// Reads and validates the header of a file of `file_len` bytes.
    pub(crate) fn read(storage: &dyn Storage, file_len: u64) -> Result<Self, OpenError> {
        let sector = read_sector(storage, file_len)?;
        // Whether there is a journal to a set bit, is asked of the superblock. Until then the
        // errors come in the order that they have for who knows no journal.
        let header = sector.header(SUPPORTED).or_else(|_| sector.header(Features::CLASSIC))?;
        check_size(header.image_size())?;
        Ok(Self { bytes: *sector.bytes(), header, in_doubt: false })
    }

    /// The header of a file of `file_len` bytes, whatever features it needs.
    pub(crate) fn describe(storage: &dyn Storage, file_len: u64) -> Result<Header, OpenError> {
        let all = Features::from_bits_retain(u64::MAX);
        Ok(read_sector(storage, file_len)?.header(all)?)
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The sector as it was written last.
    pub(crate) fn bytes(&self) -> &[u8; SECTOR_LEN_BYTES] {
        &self.bytes
    }

    /// Whether the file may hold another header than this one; writing any settles it.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Replaces the header in the file by one with other fields; durable after a flush.
    pub(crate) fn write_fields(
        &mut self,
        storage: &dyn Storage,
        change: impl FnOnce(&mut HeaderFields),
    ) -> Result<(), ImageError> {
        let mut fields = *self.header.fields();
        change(&mut fields);
        let checked = storage.len().and_then(|file_len| {
            self.header.with_fields(fields, file_len).map_err(io::Error::other)
        });
        let header = checked.map_err(ImageError::io(IoAction::WriteHeader, HostOffset::new(0)))?;
        self.write(storage, header)
    }

    /// Replaces the header in the file; durable after a flush.
    // spec: QED-HDR-09
    pub(crate) fn write(
        &mut self,
        storage: &dyn Storage,
        header: Header,
    ) -> Result<(), ImageError> {
        let bytes = header.encode_sector(&self.bytes);
        self.in_doubt = true;
        storage
            .write_at(&bytes, 0)
            .map_err(ImageError::io(IoAction::WriteHeader, HostOffset::new(0)))?;
        *self = Self { bytes, header, in_doubt: false };
        Ok(())
    }

    /// Bytes of the header area were changed by another write than [`HeaderSector::write`].
    pub(crate) fn patch(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(SECTOR_LEN_BYTES);
        let len = bytes.len().min(SECTOR_LEN_BYTES - at);
        self.bytes[at..at + len].copy_from_slice(&bytes[..len]);
    }

    /// Reads the backing file name, wherever in the header area it lies.
    pub(crate) fn read_backing_name(
        &self,
        storage: &dyn Storage,
    ) -> Result<Option<Vec<u8>>, OpenError> {
        let name = qed_layout::read_backing_name(storage, &self.header)
            .map_err(ImageError::read(IoAction::ReadHeader))?;
        name.as_deref().map(BackingName::new).transpose()?;
        Ok(name)
    }
}

/// Bytes of the image file.
pub(crate) fn storage_len(storage: &dyn Storage) -> Result<u64, ImageError> {
    storage.len().map_err(ImageError::io(IoAction::Resize, HostOffset::new(0)))
}

fn read_sector(storage: &dyn Storage, file_len: u64) -> Result<FirstSector, ImageError> {
    FirstSector::read(storage, file_len).map_err(ImageError::read(IoAction::ReadHeader))
}
