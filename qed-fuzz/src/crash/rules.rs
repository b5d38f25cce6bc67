//! The rules of docs/write-ordering.md, and which of them a crash point puts to the test: the later
//! of the two steps that a rule orders is on its way to the disk there.
//!
//! Reads headers and tables of sound images made here; knows neither how they are opened nor what a
//! guest may find.

use std::collections::BTreeSet;

use qed_io::MemoryStorage;
use qed_spec::{AutoclearFeatures, Features};

use super::guest::guest_sector;
use super::regions::{CLUSTER, Region, Regions, SUPERBLOCKS, header_end, word};
use super::states::CrashPoint;
use super::workload::{Mode, Workload};
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
    UnnamedFirst,
    ReusedFirst,
    PunchLast,
    PunchFirst,
    CopyFirst,
    TableCopyFirst,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 26] = [
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
        Self::UnnamedFirst,
        Self::ReusedFirst,
        Self::PunchLast,
        Self::PunchFirst,
        Self::CopyFirst,
        Self::TableCopyFirst,
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
            Self::UnnamedFirst => "un-naming before reuse",
            Self::ReusedFirst => "reused data before its entry",
            Self::PunchLast => "un-naming before its punch",
            Self::PunchFirst => "punch before reuse",
            Self::CopyFirst => "copy of data before its entry",
            Self::TableCopyFirst => "copy of a table before link",
        }
    }

    /// Whether the later of the two steps writes what no recovery reads: each of its states counts.
    pub(crate) const fn is_about_data(self) -> bool {
        matches!(self, Self::UnnamedFirst | Self::PunchLast | Self::PunchFirst)
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

/// Space that the crash points before have shown to be used again.
#[derive(Debug, Default)]
pub(crate) struct Reuse {
    clusters: BTreeSet<u64>,
    /// Some of it was on its way at the crash point before.
    is_new: bool,
}

/// The rules that a crash point puts to the test.
pub(crate) fn at_stake(
    point: &CrashPoint,
    regions: &Regions,
    workload: &Workload,
    reuse: &mut Reuse,
) -> Vec<Rule> {
    let mut found = Stake::default();
    found.lengths(&point.lens);
    for (number, versions) in &point.sectors {
        let region = regions.region(*number);
        for version in &versions[1..] {
            found.sector(region, &versions[0], version);
        }
        if region == Region::Data {
            found.data(*number, versions);
        }
    }
    let in_home = found.entries.iter().any(|cluster| reuse.clusters.contains(cluster));
    found.reused_entry = in_home || found.ring && reuse.is_new;
    reuse.is_new = !found.reused.is_empty();
    reuse.clusters.extend(&found.reused);
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
    /// Clusters that entries name which did not before.
    entries: BTreeSet<u64>,
    /// Clusters that get data of another guest cluster.
    reused: BTreeSet<u64>,
    reused_entry: bool,
    punched: bool,
    punched_and_reused: bool,
    moved: bool,
    table_moved: bool,
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
            Rule::UnnamedFirst => !self.reused.is_empty(),
            Rule::ReusedFirst => self.reused_entry,
            Rule::PunchLast => self.punched,
            Rule::PunchFirst => self.punched_and_reused,
            Rule::CopyFirst => self.moved,
            Rule::TableCopyFirst => self.table_moved,
        }
    }

    fn lengths(&mut self, lens: &[u64]) {
        self.longer = lens.iter().any(|len| *len > lens[0]);
        self.shorter = lens.iter().any(|len| *len < lens[0]);
    }

    fn sector(&mut self, region: Region, was: &Sector, is: &Sector) {
        let is_another = |slot| word(was, slot * 8) > 1 && word(is, slot * 8) > 1;
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
                self.table_moved |= new_words().any(is_another);
            }
            Region::L2 => {
                self.tables = true;
                let named = new_words().map(|slot| word(is, slot * 8)).filter(|value| *value > 1);
                self.entries.extend(named.map(|value| value / CLUSTER));
                self.entry |= !self.entries.is_empty();
                self.moved |= new_words().any(is_another);
            }
            Region::Names | Region::Data => {}
        }
    }

    fn data(&mut self, number: u64, versions: &[Sector]) {
        let is_punched = |version: &Sector| *version == [MemoryStorage::DISCARDED; 512];
        let was = guest_sector(&versions[0]);
        let is_reused = |version: &Sector| {
            guest_sector(version).is_some_and(|sector| was.is_some_and(|was| was != sector))
        };
        if versions[1..].iter().any(is_reused) {
            self.reused.insert(number * SECTOR / CLUSTER);
        }
        let punch = versions.iter().position(is_punched);
        self.punched |= punch.is_some_and(|punch| punch > 0);
        self.punched_and_reused |= punch.is_some_and(|punch| punch + 1 < versions.len());
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
