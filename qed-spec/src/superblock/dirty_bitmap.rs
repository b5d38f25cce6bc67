//! The per-table dirty bitmap: where it lies and what its section says. Knows nothing of when a
//! mark is set or cleared.

use zerocopy::little_endian::U64;

use crate::addr::{HostOffset, L1Index};
use crate::geometry::Geometry;
use crate::header::Header;
use crate::len::wide;
use crate::parse;
use crate::raw::RawDirtyBitmap;
use crate::superblock::error::DirtyBitmapError;

/// Place of the bitmap with one mark for each L1 slot, and the end of the image that it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtyBitmap {
    offset: HostOffset,
    len_bytes: u64,
    epoch_size: u64,
}

/// First byte behind the superblocks, where a new image has its bitmap.
const FIRST_BYTE: u64 = 16384;

/// A bitmap is a whole number of sectors: a crash leaves each of them old or new.
const SECTOR_LEN_BYTES: u64 = 512;

/// L1 slots that a disk of 2^63 bytes needs at most, so that every disk size has its marks.
const SLOTS_MAX: u64 = 1 << 22;

impl DirtyBitmap {
    /// Bytes of the payload.
    pub const LEN_BYTES: usize = size_of::<RawDirtyBitmap>();

    /// The bitmap of a new image of this shape, for disks of any size, right behind the
    /// superblocks. `epoch_size` is the end of the image in bytes.
    // spec: QED-DIRTY-01
    #[must_use]
    pub fn of_new_image(geometry: Geometry, epoch_size: u64) -> Self {
        let slots = geometry.table_entries().min(SLOTS_MAX);
        Self {
            offset: HostOffset::new(FIRST_BYTE),
            len_bytes: slots.div_ceil(8).next_multiple_of(SECTOR_LEN_BYTES),
            epoch_size,
        }
    }

    /// Clusters of the header area that hold the superblocks and this bitmap.
    #[must_use]
    pub fn header_size_clusters(&self, geometry: Geometry) -> u64 {
        self.end().div_ceil(geometry.cluster_size_bytes())
    }

    /// Parses the payload of the section in an image with this header.
    ///
    /// # Errors
    /// The rule that it breaks: the place of the bitmap, or marks that are too few for the disk.
    // spec: QED-DIRTY-01, QED-DIRTY-02
    pub fn parse(payload: &[u8], header: &Header) -> Result<Self, DirtyBitmapError> {
        let found = wide(payload.len());
        let raw = match parse::leaf::<RawDirtyBitmap>(payload) {
            Ok(([], raw)) => raw,
            _ => return Err(DirtyBitmapError::Length { found }),
        };
        let bitmap = Self {
            offset: HostOffset::new(raw.offset.get()),
            len_bytes: raw.len_bytes.get(),
            epoch_size: raw.epoch_size.get(),
        };
        let (offset, len_bytes) = (bitmap.offset, bitmap.len_bytes);
        let aligned =
            [offset.get(), len_bytes].iter().all(|it| it.is_multiple_of(SECTOR_LEN_BYTES));
        let end = offset.checked_add(len_bytes).map(HostOffset::get);
        let inside = end.is_some_and(|end| {
            end <= header.header_area_len_bytes()
                && !header.backing_name_overlaps(offset.get(), end)
        });
        // What no disk can need is not read into memory either.
        let is_short = len_bytes <= SLOTS_MAX / 8;
        if !aligned || offset.get() < FIRST_BYTE || !inside || !is_short {
            return Err(DirtyBitmapError::Place { offset, len_bytes });
        }
        let slots = header.geometry().l1_entries_for(header.image_size());
        if len_bytes < slots.div_ceil(8) {
            return Err(DirtyBitmapError::TooShort { len_bytes, slots });
        }
        Ok(bitmap)
    }

    /// The payload; [`DirtyBitmap::parse`] gives back an equal value.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN_BYTES] {
        zerocopy::transmute!(RawDirtyBitmap {
            offset: U64::new(self.offset.get()),
            len_bytes: U64::new(self.len_bytes),
            epoch_size: U64::new(self.epoch_size),
        })
    }

    /// Where the bitmap lies in the file.
    #[must_use]
    pub const fn offset(&self) -> HostOffset {
        self.offset
    }

    /// Bytes of the bitmap, whole sectors.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Byte after the last one.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset.get().saturating_add(self.len_bytes)
    }

    /// The end in bytes below which the entries of unmarked tables lie.
    #[must_use]
    pub const fn epoch_size(&self) -> u64 {
        self.epoch_size
    }

    /// The same bitmap for an image that ends elsewhere.
    #[must_use]
    pub const fn with_epoch_size(self, epoch_size: u64) -> Self {
        Self { epoch_size, ..self }
    }

    /// The byte of the bitmap and the bit in it that mark a slot; none for a slot past the marks.
    // spec: QED-DIRTY-02
    #[must_use]
    pub fn mark_of(&self, slot: L1Index) -> Option<(u64, u8)> {
        let (byte, bit) = (slot.get() / 8, slot.get() % 8);
        let mask = 1_u8.checked_shl(u32::try_from(bit).ok()?)?;
        (byte < self.len_bytes).then_some((byte, mask))
    }
}

const _: () = assert!(DirtyBitmap::LEN_BYTES == 24);
