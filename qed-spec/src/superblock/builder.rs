//! Writing a superblock: from nothing, or from a parsed one with everything kept that is not
//! changed, sections of unknown types included.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use crate::len::wide;
use crate::raw::{RawSectionHead, RawSuperblock, SECTIONS_LEN_BYTES, SUPERBLOCK_LEN_BYTES};
use crate::superblock::backing_format::{MAX_BACKING_FORMAT_LEN_BYTES, StoredBackingFormat};
use crate::superblock::error::SuperblockFull;
use crate::superblock::section::{SECTION_HEAD_LEN_BYTES, Section, SectionType, Sections};
use crate::superblock::{Epoch, Generation, ImageUuid, Superblock, checksum};

/// The next superblock of an image, 4 KiB of it in place; encoding allocates nothing.
#[derive(Debug, Clone)]
pub struct SuperblockBuilder {
    uuid: ImageUuid,
    epoch: Epoch,
    area: Area,
}

impl SuperblockBuilder {
    /// A superblock without sections.
    #[must_use]
    pub fn new(uuid: ImageUuid, epoch: Epoch) -> Self {
        Self { uuid, epoch, area: Area::EMPTY }
    }

    /// A superblock with the identity, the epoch and every section of `current`.
    // spec: QED-SB-13
    #[must_use]
    pub fn from_superblock(current: &Superblock<'_>) -> Self {
        let mut area = Area::EMPTY;
        area.extend(current.sections());
        Self { uuid: current.uuid(), epoch: current.epoch(), area }
    }

    /// Replaces the epoch.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Adds or replaces the section of this type; the others are kept as they are.
    ///
    /// # Errors
    /// [`SuperblockFull`], and the builder is unchanged.
    // spec: QED-SB-06
    pub fn set_section(&mut self, kind: SectionType, payload: &[u8]) -> Result<(), SuperblockFull> {
        let (needed, free) = (section_len(payload), self.area.without(kind).free());
        if needed > free {
            return Err(SuperblockFull { kind, needed: wide(needed), free: wide(free) });
        }
        let mut area = Area::EMPTY;
        area.extend(self.area.sections().filter(|section| section.kind() < kind));
        area.push(kind, payload);
        area.extend(self.area.sections().filter(|section| section.kind() > kind));
        self.area = area;
        Ok(())
    }

    /// Stores the format of the backing file.
    ///
    /// # Errors
    /// As [`SuperblockBuilder::set_section`].
    // spec: QED-SB-15
    pub fn set_backing_format(
        &mut self,
        stored: &StoredBackingFormat<'_>,
    ) -> Result<(), SuperblockFull> {
        let mut payload = [0; 4 + MAX_BACKING_FORMAT_LEN_BYTES];
        let (crc, format) = (stored.name_crc32c().to_le_bytes(), stored.format().as_bytes());
        for (slot, byte) in payload.iter_mut().zip(crc.iter().chain(format)) {
            *slot = *byte;
        }
        let len = crc.len().saturating_add(format.len());
        self.set_section(SectionType::BACKING_FORMAT, payload.get(..len).unwrap_or_default())
    }

    /// Removes the section of this type, if there is one.
    pub fn remove_section(&mut self, kind: SectionType) {
        self.area = self.area.without(kind);
    }

    /// The 4096 bytes of the copy, checksum included; [`Superblock::parse`] reads them back.
    ///
    /// Which generation to use and where to write is [`crate::SuperblockChoice::next_write`].
    // spec: QED-SB-02, QED-SB-03
    #[must_use]
    pub fn encode(&self, generation: Generation) -> [u8; SUPERBLOCK_LEN_BYTES] {
        let mut raw = RawSuperblock {
            magic: RawSuperblock::MAGIC,
            version: U32::new(RawSuperblock::VERSION),
            crc32c: U32::ZERO,
            sections_len: narrow(self.area.len),
            generation: U64::new(generation.get()),
            uuid: *self.uuid.as_bytes(),
            epoch: U64::new(self.epoch.get()),
            sections: self.area.bytes,
        };
        raw.crc32c = U32::new(checksum(&raw));
        zerocopy::transmute!(raw)
    }
}

/// Sections as they lie in a superblock: well formed, ascending, zeros behind them.
#[derive(Debug, Clone)]
struct Area {
    bytes: [u8; SECTIONS_LEN_BYTES],
    len: usize,
}

impl Area {
    const EMPTY: Self = Self { bytes: [0; SECTIONS_LEN_BYTES], len: 0 };

    fn sections(&self) -> Sections<'_> {
        let used = self.bytes.get(..self.len).unwrap_or_default();
        Sections::checked(used).expect("`push` keeps sections well formed and callers sort them")
    }

    fn without(&self, kind: SectionType) -> Self {
        let mut area = Self::EMPTY;
        area.extend(self.sections().filter(|section| section.kind() != kind));
        area
    }

    fn free(&self) -> usize {
        SECTIONS_LEN_BYTES.saturating_sub(self.len)
    }

    fn extend<'a>(&mut self, sections: impl Iterator<Item = Section<'a>>) {
        for section in sections {
            self.push(section.kind(), section.payload());
        }
    }

    /// Appends a section for which there is room; its type must be above those before it.
    fn push(&mut self, kind: SectionType, payload: &[u8]) {
        let end = self.len.saturating_add(section_len(payload));
        let room = self.bytes.get_mut(self.len..end).expect("callers ask `free` first");
        let head = RawSectionHead { kind: U32::new(kind.get()), len: narrow(payload.len()) };
        for (slot, byte) in room.iter_mut().zip(head.as_bytes().iter().chain(payload)) {
            *slot = *byte;
        }
        self.len = end;
    }
}

/// Bytes that a section with this payload takes up, head and padding included.
fn section_len(payload: &[u8]) -> usize {
    let len = SECTION_HEAD_LEN_BYTES.saturating_add(payload.len());
    len.checked_next_multiple_of(8).unwrap_or(usize::MAX)
}

fn narrow(len: usize) -> U32 {
    U32::new(u32::try_from(len).expect("at most the length of a superblock"))
}
