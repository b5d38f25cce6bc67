//! Which area each byte of the file belongs to.
//!
//! Where areas of a damaged image overlap, the byte belongs to the first of: header area, L1 table,
//! L2 tables in L1 order, guest data. What a table names beyond that shows in its entries.

use std::collections::BTreeMap;

use qed_io::{RunKind, Storage};
use qed_spec::{
    Anchor, DirtyBitmap, Features, Geometry, HEADER_LEN_BYTES, Header, HeaderError, HostOffset,
    JournalRing, JournalSeed, L1Entry, L1Index, L2Entry, RawAnchor, RawSuperblock,
    SUPERBLOCK_LEN_BYTES, SectionType, SuperblockChoice, SuperblockCopy,
};

use super::areas::{Area, AreaKind};
use super::runs::{Entries, PIECE_LEN, Piece};

/// Bits of the header that change nothing of what tables mean.
const SHOWN: Features = Features::CLASSIC.union(Features::JOURNAL_ACTIVE);

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
        let mut front = vec![0; usize::try_from(file_len.min(PIECE_LEN)).unwrap_or(0)];
        storage.read_at(&mut front, 0)?;
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
        match Header::parse(&front, file_len, SHOWN) {
            Ok(header) => this.place(storage, &header, &front)?,
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

    fn place(
        &mut self,
        storage: &dyn Storage,
        header: &Header,
        front: &[u8],
    ) -> anyhow::Result<()> {
        let geometry = header.geometry();
        self.geometry = Some(geometry);
        self.header_end = header.header_area_len_bytes().min(self.file_len);
        self.place_header_area(header, front);
        self.scan_unused(storage)?;
        let l1_offset = header.fields().l1_table_offset.get();
        let table_len = geometry.table_size_bytes();
        self.claim(l1_offset, table_len, AreaKind::L1Table);
        let mut tables = Vec::new();
        let mut l1_entries = Entries::of(storage, l1_offset, geometry);
        while let Some(piece) = l1_entries.next_piece()? {
            let Piece::Values { first, values } = piece else { continue };
            for (i, value) in (first..).zip(values) {
                if let Ok(L1Entry::Table(table)) = L1Entry::decode(value, geometry) {
                    let at = geometry.host_offset(table).get();
                    let kind = AreaKind::L2Table(L1Index::new(i));
                    if at >= self.header_end && self.claim(at, table_len, kind) {
                        tables.push(at);
                    }
                }
            }
        }
        for at in tables {
            self.place_data(storage, geometry, at)?;
        }
        self.data.sort_unstable();
        Ok(())
    }

    fn place_header_area(&mut self, header: &Header, front: &[u8]) {
        self.claim(0, HEADER_LEN_BYTES as u64, AreaKind::Header);
        if let Some((at, len)) = header.backing_name_place() {
            self.claim(at.into(), len.into(), AreaKind::BackingName);
        }
        let starts_with = |at: HostOffset, magic: &[u8]| {
            let at = usize::try_from(at.get()).unwrap_or(usize::MAX);
            front.get(at..).is_some_and(|bytes| bytes.starts_with(magic))
        };
        if SuperblockCopy::both_fit(header) {
            let copies = [
                (SuperblockCopy::A.offset(), AreaKind::SuperblockA),
                (SuperblockCopy::B.offset(), AreaKind::SuperblockB),
            ];
            self.place_sections(header, front);
            for (at, kind) in copies {
                if starts_with(at, &RawSuperblock::MAGIC) {
                    self.claim(at.get(), SUPERBLOCK_LEN_BYTES as u64, kind);
                }
            }
        }
        if starts_with(Anchor::OFFSET, &RawAnchor::MAGIC) {
            let len = size_of::<RawAnchor>() as u64;
            self.claim(Anchor::OFFSET.get(), len, AreaKind::Anchor);
        }
    }

    /// What the current superblock names.
    fn place_sections(&mut self, header: &Header, front: &[u8]) {
        let copy = |copy: SuperblockCopy| {
            let at = usize::try_from(copy.offset().get()).unwrap_or(usize::MAX);
            front.get(at..).unwrap_or_default()
        };
        let choice = SuperblockChoice::new(copy(SuperblockCopy::A), copy(SuperblockCopy::B));
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

    fn place_data(
        &mut self,
        storage: &dyn Storage,
        geometry: Geometry,
        table: u64,
    ) -> anyhow::Result<()> {
        let cluster = geometry.cluster_size_bytes();
        let mut entries = Entries::of(storage, table, geometry);
        while let Some(piece) = entries.next_piece()? {
            let Piece::Values { values, .. } = piece else { continue };
            for value in values {
                let Ok(L2Entry::Data(host)) = L2Entry::decode(value, geometry) else { continue };
                let start = geometry.host_offset(host).get();
                let end = start.saturating_add(cluster).min(self.file_len);
                match self.data.last_mut() {
                    _ if start >= end => {}
                    Some((_, last)) if *last == start => *last = end,
                    _ => self.data.push((start, end)),
                }
            }
        }
        Ok(())
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

fn is_zero(storage: &dyn Storage, start: u64, end: u64) -> anyhow::Result<bool> {
    let mut at = start;
    while at < end {
        let run = storage.run_at(at)?;
        let mut len = run.len.min(end - at);
        if run.kind == RunKind::Data {
            len = len.min(PIECE_LEN);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            storage.read_at(&mut bytes, at)?;
            if !qed_convert::is_zero(&bytes) {
                return Ok(false);
            }
        }
        if len == 0 {
            break;
        }
        at += len;
    }
    Ok(true)
}
