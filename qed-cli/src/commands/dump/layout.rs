//! Which area each byte of the file belongs to.
//!
//! Where areas of a damaged image overlap, the byte belongs to the first of: header area, L1 table,
//! L2 tables in L1 order, guest data. What a table names beyond that shows in its entries.

use std::collections::BTreeMap;

use qed_io::Storage;
use qed_layout::{
    FirstSector, PieceBuffer, Pieces, ReadError, SUPPORTED, SuperblockBytes, TableReader, read,
};
use qed_spec::{
    Anchor, DirtyBitmap, Geometry, HEADER_LEN_BYTES, Header, HeaderError, JournalRing, JournalSeed,
    L1Entry, L1Index, L2Entry, RawAnchor, RawSuperblock, SectionType, SuperblockCopy,
};

use super::areas::{Area, AreaKind};

/// The areas of one file.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) file_len: u64,
    /// None if the header breaks a rule: then nothing else can be placed.
    pub(super) geometry: Option<Geometry>,
    /// Why not.
    pub(super) fault: Option<HeaderError>,
    /// What the blocks of the journal belong to.
    pub(super) seed: Option<JournalSeed>,
    header_end: u64,
    header_is_zero: BTreeMap<u64, bool>,
    /// By first byte; they do not overlap.
    metadata: BTreeMap<u64, Area>,
    /// Runs of guest data by first byte; they may overlap each other and the metadata.
    data: Vec<(u64, u64)>,
}

impl Layout {
    /// Places everything the header and the tables name.
    ///
    /// # Errors
    /// What cannot be read, a file that is no QED image, unknown feature bits.
    pub(super) fn of(storage: &dyn Storage) -> anyhow::Result<Self> {
        let file_len = storage.len()?;
        let mut this = Self {
            file_len,
            geometry: None,
            fault: None,
            seed: None,
            header_end: 0,
            header_is_zero: BTreeMap::new(),
            metadata: BTreeMap::new(),
            data: Vec::new(),
        };
        match FirstSector::read(storage, file_len)?.header(SUPPORTED) {
            Ok(header) => this.place(storage, &header)?,
            Err(
                error @ (HeaderError::Magic { .. }
                | HeaderError::Truncated { .. }
                | HeaderError::UnsupportedFeature { .. }),
            ) => return Err(error.into()),
            Err(error) => {
                this.claim(0, HEADER_LEN_BYTES as u64, AreaKind::Header);
                this.fault = Some(error);
            }
        }
        Ok(this)
    }

    fn place(&mut self, storage: &dyn Storage, header: &Header) -> anyhow::Result<()> {
        let geometry = header.geometry();
        self.geometry = Some(geometry);
        self.header_end = header.header_area_len_bytes().min(self.file_len);
        self.place_header_area(storage, header)?;
        self.scan_unused(storage)?;
        let (l1_offset, table_len) = (header.fields().l1_table_offset, geometry.table_size_bytes());
        self.claim(l1_offset.get(), table_len, AreaKind::L1Table);
        let reader = TableReader::new(storage, self.file_len, table_len);
        let mut buffer = PieceBuffer::default();
        let mut tables = Vec::new();
        reader.for_each(reader.pieces(l1_offset), &mut buffer, |slot, value| {
            if let Ok(L1Entry::Table(table)) = L1Entry::decode(value, geometry) {
                let at = geometry.host_offset(table);
                let kind = AreaKind::L2Table(L1Index::new(slot));
                if at.get() >= self.header_end && self.claim(at.get(), table_len, kind) {
                    tables.push(at);
                }
            }
            Ok::<(), ReadError>(())
        })?;
        for at in tables {
            reader.for_each(reader.pieces(at), &mut buffer, |_, value| {
                self.place_data(geometry, value);
                Ok::<(), ReadError>(())
            })?;
        }
        self.data.sort_unstable();
        Ok(())
    }

    fn place_header_area(&mut self, storage: &dyn Storage, header: &Header) -> anyhow::Result<()> {
        self.claim(0, HEADER_LEN_BYTES as u64, AreaKind::Header);
        if let Some((at, len)) = header.backing_name_place() {
            self.claim(at.into(), len.into(), AreaKind::BackingName);
        }
        if let Some(superblock) = SuperblockBytes::read(storage, header)? {
            self.place_sections(header, &superblock);
            for (copy, bytes) in superblock.copies() {
                if bytes.starts_with(&RawSuperblock::MAGIC) {
                    let kind = match copy {
                        SuperblockCopy::A => AreaKind::SuperblockA,
                        SuperblockCopy::B => AreaKind::SuperblockB,
                    };
                    self.claim(copy.offset().get(), bytes.len() as u64, kind);
                }
            }
        }
        let mut magic = RawAnchor::MAGIC;
        read(storage, &mut magic, Anchor::OFFSET.get())?;
        if magic == RawAnchor::MAGIC {
            let len = size_of::<RawAnchor>() as u64;
            self.claim(Anchor::OFFSET.get(), len, AreaKind::Anchor);
        }
        Ok(())
    }

    /// What the current superblock names.
    fn place_sections(&mut self, header: &Header, superblock: &SuperblockBytes) {
        let choice = superblock.choose();
        let Some((_, current)) = choice.ok().and_then(|choice| choice.current()) else { return };
        let payload = |kind| current.section(kind).map(|section| section.payload());
        let bitmap = payload(SectionType::TABLE_DIRTY).map(|it| DirtyBitmap::parse(it, header));
        if let Some(Ok(bitmap)) = bitmap {
            self.claim(bitmap.offset().get(), bitmap.len_bytes(), AreaKind::DirtyBitmap);
        }
        let ring = payload(SectionType::JOURNAL).map(|it| JournalRing::parse(it, header));
        if let Some(Ok(ring)) = ring {
            self.seed = Some(JournalSeed::new(current.uuid(), current.epoch()));
            self.claim(ring.offset().get(), ring.len_bytes(), AreaKind::Journal);
        }
    }

    /// Reads the unnamed parts of the header area to say whether they are zero.
    fn scan_unused(&mut self, storage: &dyn Storage) -> anyhow::Result<()> {
        let mut at = 0;
        let claimed: Vec<Area> = self.metadata.values().copied().collect();
        let end = Area { start: self.header_end, end: self.header_end, kind: AreaKind::Unknown };
        for area in claimed.into_iter().chain([end]) {
            if at < area.start {
                let zero = is_zero(storage, at, area.start)?;
                self.header_is_zero.insert(at, zero);
            }
            at = area.end;
        }
        Ok(())
    }

    /// Adds what an L2 entry names to the runs of guest data.
    fn place_data(&mut self, geometry: Geometry, value: u64) {
        let Ok(L2Entry::Data(host)) = L2Entry::decode(value, geometry) else { return };
        let start = geometry.host_offset(host).get();
        let end = start.saturating_add(geometry.cluster_size_bytes()).min(self.file_len);
        match self.data.last_mut() {
            _ if start >= end => {}
            Some((_, last)) if *last == start => *last = end,
            _ => self.data.push((start, end)),
        }
    }

    /// Gives a stretch that lies inside the file to `kind`, unless part of it is given away.
    fn claim(&mut self, start: u64, len: u64, kind: AreaKind) -> bool {
        let Some(end) = start.checked_add(len).filter(|end| *end <= self.file_len) else {
            return false;
        };
        let last_before_end = self.metadata.range(..end).next_back();
        let is_free = last_before_end.is_none_or(|(_, other)| other.end <= start);
        if len > 0 && is_free {
            self.metadata.insert(start, Area { start, end, kind });
            return true;
        }
        false
    }

    /// All areas in the order of the file, without gap or overlap.
    pub(super) fn areas(&self) -> impl Iterator<Item = Area> + '_ {
        let mut at = 0;
        let mut data = self.data.iter().copied().peekable();
        std::iter::from_fn(move || {
            if at >= self.file_len {
                return None;
            }
            while data.next_if(|(_, end)| *end <= at).is_some() {}
            let area = self.area_at(at, data.peek().copied());
            at = area.end;
            Some(area)
        })
    }

    /// The area that begins at `at`; `data` is the first run that ends after it.
    fn area_at(&self, at: u64, data: Option<(u64, u64)>) -> Area {
        if let Some(area) = self.metadata.get(&at) {
            return *area;
        }
        let next = self.metadata.range(at..).next().map_or(self.file_len, |(start, _)| *start);
        let (end, kind) = match data {
            _ if self.geometry.is_none() => (next, AreaKind::Unknown),
            _ if at < self.header_end => {
                let zero = self.header_is_zero.get(&at).copied().unwrap_or(false);
                (next.min(self.header_end), AreaKind::HeaderUnused { zero })
            }
            Some((start, end)) if start <= at => (next.min(end), AreaKind::Data),
            Some((start, _)) => (next.min(start), AreaKind::Unreferenced),
            None => (next, AreaKind::Unreferenced),
        };
        Area { start: at, end, kind }
    }
}

fn is_zero(storage: &dyn Storage, start: u64, end: u64) -> Result<bool, ReadError> {
    let mut buffer = PieceBuffer::default();
    for piece in Pieces::of(storage, start..end) {
        if buffer.read(storage, &piece?)?.iter().any(|entry| entry.get() != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
