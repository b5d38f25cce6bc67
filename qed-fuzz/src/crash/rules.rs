//! The rules of docs/write-ordering.md, and which of them a crash point puts to the test: the later
//! of the two steps that a rule orders is on its way to the disk there.
//!
//! Reads headers and tables of sound images made here; knows neither how they are opened nor what a
//! guest may find.

use std::ops::Range;

use qed_spec::{AutoclearFeatures, Features};

use super::states::CrashPoint;
use super::workload::{Mode, Workload};
use crate::size::usize_of;
use crate::sparse::{EMPTY, SECTOR, Sector, SparseContent};

/// An order of two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`Rule::text` says what each is")]
pub enum Rule {
    DataFirst,
    TableFirst,
    LengthFirst,
    FlushCovers,
    NeedCheckFirst,
    NeedCheckLast,
    MarksFirst,
    EndFirst,
    MarksLast,
    SectionFirst,
    SuperblockCopy,
    Grow,
    Shrink,
    CutLast,
    NameFirst,
    ActiveFirst,
    RecordsFirst,
    HomeFirst,
    TailFirst,
    ActiveLast,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::DataFirst,
        Self::TableFirst,
        Self::LengthFirst,
        Self::FlushCovers,
        Self::NeedCheckFirst,
        Self::NeedCheckLast,
        Self::MarksFirst,
        Self::EndFirst,
        Self::MarksLast,
        Self::SectionFirst,
        Self::SuperblockCopy,
        Self::Grow,
        Self::Shrink,
        Self::CutLast,
        Self::NameFirst,
        Self::ActiveFirst,
        Self::RecordsFirst,
        Self::HomeFirst,
        Self::TailFirst,
        Self::ActiveLast,
    ];

    /// What comes before what.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::DataFirst => "data before its entry",
            Self::TableFirst => "table before its link",
            Self::LengthFirst => "length before entries",
            Self::FlushCovers => "entries after their flush",
            Self::NeedCheckFirst => "NEED_CHECK before tables",
            Self::NeedCheckLast => "tables before its clearing",
            Self::MarksFirst => "marks before tables",
            Self::EndFirst => "recorded end before marks",
            Self::MarksLast => "NEED_CHECK clear before marks",
            Self::SectionFirst => "section before its bit",
            Self::SuperblockCopy => "one superblock at a time",
            Self::Grow => "tables before a larger size",
            Self::Shrink => "tables before a smaller size",
            Self::CutLast => "size before the cut",
            Self::NameFirst => "name before the header",
            Self::ActiveFirst => "JOURNAL_ACTIVE before records",
            Self::RecordsFirst => "records before tables",
            Self::HomeFirst => "tables before the tail",
            Self::TailFirst => "tail before its space",
            Self::ActiveLast => "tail before no JOURNAL_ACTIVE",
        }
    }

    /// Whether the steps exist in images of a mode, with or without a backing file.
    #[must_use]
    pub const fn applies(self, mode: Mode, has_backing: bool) -> bool {
        let has_marks = matches!(mode, Mode::Compat);
        let has_journal = matches!(mode, Mode::Journal);
        match self {
            Self::NeedCheckFirst | Self::NeedCheckLast => !has_backing && !has_journal,
            Self::MarksFirst | Self::EndFirst | Self::MarksLast => has_marks && !has_backing,
            Self::SectionFirst | Self::SuperblockCopy => has_marks || has_journal,
            Self::NameFirst => has_backing,
            Self::ActiveFirst
            | Self::RecordsFirst
            | Self::HomeFirst
            | Self::TailFirst
            | Self::ActiveLast => has_journal,
            _ => true,
        }
    }
}

/// What a sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    Header,
    /// Of the header area, what is none of the others.
    Names,
    Superblock,
    Bitmap,
    Ring,
    L1,
    L2,
    Data,
}

/// Where metadata lies, or lay or will lie if one state or another of a crash point survives.
pub(crate) struct Regions {
    mode: Mode,
    header_end: u64,
    l1: Range<u64>,
    /// First bytes of L2 tables.
    tables: Vec<u64>,
}

const CLUSTER: u64 = 4096;
const TABLE: u64 = 2 * CLUSTER;
const SUPERBLOCKS: Range<u64> = 8192..16384;

impl Regions {
    pub(crate) fn of(point: &CrashPoint, mode: Mode) -> Self {
        let durable = &point.durable;
        let l1_start = word(&durable.sector(0), 40);
        let l1 = l1_start..l1_start + TABLE;
        let mut tables = Vec::new();
        let mut add = |sector: &Sector| {
            tables.extend((0..64).map(|slot| word(sector, slot * 8)).filter(|slot| *slot != 0));
        };
        for number in l1.start / SECTOR..l1.end / SECTOR {
            add(&durable.sector(number));
        }
        for (number, versions) in &point.sectors {
            if l1.contains(&(number * SECTOR)) {
                versions.iter().for_each(&mut add);
            }
        }
        tables.sort_unstable();
        tables.dedup();
        Self { mode, header_end: header_end(durable), l1, tables }
    }

    pub(crate) fn region(&self, sector: u64) -> Region {
        let at = sector * SECTOR;
        let is_extended = self.header_end > SUPERBLOCKS.end;
        if at == 0 {
            Region::Header
        } else if is_extended && SUPERBLOCKS.contains(&at) {
            Region::Superblock
        } else if is_extended && (SUPERBLOCKS.end..self.header_end).contains(&at) {
            if self.mode == Mode::Journal { Region::Ring } else { Region::Bitmap }
        } else if at < self.header_end {
            Region::Names
        } else if self.l1.contains(&at) {
            Region::L1
        } else if self.tables.iter().any(|table| (*table..table + TABLE).contains(&at)) {
            Region::L2
        } else {
            Region::Data
        }
    }
}

/// The rules that a crash point puts to the test.
pub(crate) fn at_stake(point: &CrashPoint, regions: &Regions, workload: &Workload) -> Vec<Rule> {
    let mut found = Stake::default();
    found.lengths(&point.lens);
    for (number, versions) in &point.sectors {
        let region = regions.region(*number);
        for version in &versions[1..] {
            found.sector(region, &versions[0], version);
        }
    }
    let durable = Header::of(&point.durable);
    found.need_check = durable.features.contains(Features::NEED_CHECK);
    found.is_marked = workload.mode == Mode::Compat && is_marked(&point.durable);
    found.is_active = durable.features.contains(Features::JOURNAL_ACTIVE);
    found.is_carried = point.carried;
    let has_backing = workload.backing > 0;
    let rules = Rule::ALL.into_iter().filter(|rule| rule.applies(workload.mode, has_backing));
    rules.filter(|rule| found.has(*rule)).collect()
}

/// Whether a recovery is asked for.
pub(crate) fn asks_for_check(content: &SparseContent) -> bool {
    Header::of(content).features.contains(Features::NEED_CHECK)
}

/// Whether the dirty bitmap says which tables a recovery has to check.
pub(crate) fn names_tables(content: &SparseContent, mode: Mode) -> bool {
    mode == Mode::Compat && asks_for_check(content) && is_kept(content, mode) && is_marked(content)
}

/// Whether a table is marked in the dirty bitmap of an image in compat mode.
fn is_marked(content: &SparseContent) -> bool {
    let bitmap = SUPERBLOCKS.end..header_end(content);
    (bitmap.start / SECTOR..bitmap.end / SECTOR).any(|number| content.sector(number) != EMPTY)
}

/// Whether two states have the same superblocks.
pub(crate) fn same_superblocks(a: &SparseContent, b: &SparseContent) -> bool {
    let mut sectors = SUPERBLOCKS.start / SECTOR..SUPERBLOCKS.end / SECTOR;
    sectors.all(|number| a.sector(number) == b.sector(number))
}

fn header_end(content: &SparseContent) -> u64 {
    u64::from(half(&content.sector(0), 12)) * CLUSTER
}

/// What is on its way to the disk.
#[derive(Debug, Default)]
struct Stake {
    need_check: bool,
    is_marked: bool,
    is_carried: bool,
    longer: bool,
    shorter: bool,
    entry: bool,
    link: bool,
    tables: bool,
    superblock: bool,
    marks_set: bool,
    marks_cleared: bool,
    need_check_cleared: bool,
    is_active: bool,
    active_cleared: bool,
    ring: bool,
    ring_again: bool,
    bit_set: bool,
    grown: bool,
    shrunk: bool,
    renamed: bool,
}

impl Stake {
    fn has(&self, rule: Rule) -> bool {
        match rule {
            Rule::DataFirst => self.entry || self.ring,
            Rule::TableFirst => self.link,
            Rule::LengthFirst => self.longer,
            Rule::FlushCovers => (self.tables || self.ring) && self.is_carried,
            Rule::NeedCheckFirst => self.tables && self.need_check,
            Rule::NeedCheckLast => self.need_check_cleared,
            Rule::MarksFirst => self.tables && self.is_marked,
            Rule::EndFirst => self.marks_set,
            Rule::MarksLast => self.marks_cleared,
            Rule::SectionFirst => self.bit_set,
            Rule::SuperblockCopy => self.superblock,
            Rule::Grow => self.grown,
            Rule::Shrink => self.shrunk,
            Rule::CutLast => self.shorter,
            Rule::NameFirst => self.renamed,
            Rule::ActiveFirst => self.ring && self.is_active,
            Rule::RecordsFirst => self.tables,
            Rule::HomeFirst => self.superblock && self.is_active,
            Rule::TailFirst => self.ring_again,
            Rule::ActiveLast => self.active_cleared,
        }
    }

    fn lengths(&mut self, lens: &[u64]) {
        self.longer = lens.iter().any(|len| *len > lens[0]);
        self.shorter = lens.iter().any(|len| *len < lens[0]);
    }

    fn sector(&mut self, region: Region, was: &Sector, is: &Sector) {
        let new_words = || (0..64).filter(|slot| word(is, slot * 8) != word(was, slot * 8));
        match region {
            Region::Header => self.header(&Header::of_sector(was), &Header::of_sector(is)),
            Region::Superblock => self.superblock = true,
            Region::Bitmap if is.iter().all(|byte| *byte == 0) => self.marks_cleared = true,
            Region::Bitmap => self.marks_set = true,
            Region::Ring => {
                self.ring = true;
                self.ring_again |= *was != EMPTY;
            }
            Region::L1 => {
                self.tables = true;
                self.link |= new_words().any(|slot| word(is, slot * 8) != 0);
            }
            Region::L2 => {
                self.tables = true;
                self.entry |= new_words().any(|slot| word(is, slot * 8) > 1);
            }
            Region::Names | Region::Data => {}
        }
    }

    fn header(&mut self, was: &Header, is: &Header) {
        let is_cleared = |bit| was.features.contains(bit) && !is.features.contains(bit);
        self.need_check_cleared |= is_cleared(Features::NEED_CHECK);
        self.active_cleared |= is_cleared(Features::JOURNAL_ACTIVE);
        self.bit_set |= !is.autoclear.is_empty() && is.autoclear != was.autoclear;
        self.grown |= is.image_size > was.image_size;
        self.shrunk |= is.image_size < was.image_size;
        self.renamed |= is.name_place != was.name_place;
    }
}

/// Whether an image has the bit that says that what its mode needs is kept up.
pub(crate) fn is_kept(content: &SparseContent, mode: Mode) -> bool {
    Header::of(content).autoclear.contains(mode.kept_bit())
}

/// Whether part of an image is in its journal alone.
pub(crate) fn is_active(content: &SparseContent) -> bool {
    Header::of(content).features.contains(Features::JOURNAL_ACTIVE)
}

/// The fields that rules are about.
struct Header {
    features: Features,
    autoclear: AutoclearFeatures,
    image_size: u64,
    name_place: u64,
}

impl Header {
    fn of(content: &SparseContent) -> Self {
        Self::of_sector(&content.sector(0))
    }

    fn of_sector(sector: &Sector) -> Self {
        Self {
            features: Features::from_bits_retain(word(sector, 16)),
            autoclear: AutoclearFeatures::from_bits_retain(word(sector, 32)),
            image_size: word(sector, 48),
            name_place: word(sector, 56),
        }
    }
}

fn word(sector: &Sector, at: u64) -> u64 {
    let bytes = sector[usize_of(at)..].first_chunk().expect("inside the sector");
    u64::from_le_bytes(*bytes)
}

fn half(sector: &Sector, at: u64) -> u32 {
    let bytes = sector[usize_of(at)..].first_chunk().expect("inside the sector");
    u32::from_le_bytes(*bytes)
}
