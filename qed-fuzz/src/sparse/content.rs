//! What a sparse file holds, and what a recorded operation does to it.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use qed_io::{MemoryStorage, Operation, RunKind};

use crate::size::usize_of;

/// Bytes of a sector: what a crash leaves old or new, each on its own.
pub const SECTOR: u64 = 512;

/// The bytes of one sector.
pub type Sector = [u8; 512];

pub(crate) const EMPTY: Sector = [0; 512];

/// Bytes that are stored together; what was never written is a hole.
const PAGE_LEN: usize = 4096;
const PAGE: u64 = PAGE_LEN as u64;
type Page = [u8; PAGE_LEN];
static ZEROS: Page = [0; PAGE_LEN];

/// What a file holds. Copies share the pages that neither has changed since; two are equal if they read
/// alike, wherever their holes are.
#[derive(Debug, Clone, Default)]
pub struct SparseContent {
    /// Bytes. Nothing but zeros is kept past it.
    len: u64,
    /// Pages that are not there are holes.
    pages: BTreeMap<u64, Arc<Page>>,
}

impl SparseContent {
    /// These bytes; pages of zeros are holes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        for (page, bytes) in (0..).zip(bytes.chunks(PAGE_LEN)) {
            if bytes.iter().any(|byte| *byte != 0) {
                content.write(bytes, page * PAGE);
            }
        }
        content.len = bytes.len() as u64;
        content
    }

    /// `len` bytes, of which the first `used` are `byte`: what a used block device holds.
    #[must_use]
    pub fn stale(used: u64, len: u64, byte: u8) -> Self {
        let page = Arc::new([byte; PAGE_LEN]);
        Self { len, pages: (0..used.div_ceil(PAGE)).map(|number| (number, page.clone())).collect() }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` zeros, all hole.
    #[must_use]
    pub const fn hole(len: u64) -> Self {
        Self { len, pages: BTreeMap::new() }
    }

    /// All bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes(0..self.len)
    }

    /// The bytes of a range; zeros in holes and past the end.
    #[must_use]
    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; usize_of(range.end - range.start)];
        self.read(&mut bytes, range.start);
        bytes
    }

    /// Every 8 bytes of a range that are not all zero: their number in the range, and their value
    /// as a little-endian number. The range starts at a multiple of 8.
    pub fn words(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u64)> + '_ {
        let pages = range.start / PAGE..range.end.div_ceil(PAGE);
        let words = self.pages.range(pages).flat_map(|(number, page)| {
            let at = (number * PAGE..).step_by(8);
            let value = |word: &[u8]| u64::from_le_bytes(word.try_into().expect("eight bytes"));
            at.zip(page.chunks_exact(8).map(value))
        });
        let start = range.start;
        words
            .filter(move |(at, value)| range.contains(at) && *value != 0)
            .map(move |(at, value)| ((at - start) / 8, value))
    }

    /// The parts that are not holes: where each lies, and its bytes.
    pub fn stored(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().map(|(number, page)| {
            let at = number * PAGE;
            (at, &page[..usize_of(self.len.saturating_sub(at).min(PAGE))])
        })
    }

    /// Changes the byte at `offset`, as a disk that rots does.
    pub fn rot(&mut self, offset: u64) {
        self.page_mut(offset / PAGE)[usize_of(offset % PAGE)] ^= 0x55;
    }

    /// Fills `buf` from `offset`; zeros in holes and past the end.
    pub fn read(&self, buf: &mut [u8], offset: u64) {
        for (number, within, part) in pieces(offset, buf.len()) {
            let to = &mut buf[part];
            match self.pages.get(&number) {
                Some(page) => to.copy_from_slice(&page[within..within + to.len()]),
                None => to.fill(0),
            }
        }
    }

    /// Writes `bytes` at `offset`, where the file may grow.
    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        self.len = self.len.max(offset + bytes.len() as u64);
        for (number, within, part) in pieces(offset, bytes.len()) {
            let from = &bytes[part];
            self.page_mut(number)[within..within + from.len()].copy_from_slice(from);
        }
    }

    /// Sets the length, in bytes.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len..self.len);
        }
        self.len = len;
    }

    /// Makes a part of the file read as zeros; whole pages become holes.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        let whole = range.start.div_ceil(PAGE)..range.end / PAGE;
        let mut edge = |range: Range<u64>| {
            for (number, within, part) in pieces(range.start, usize_of(range.end - range.start)) {
                if let Some(page) = self.pages.get_mut(&number) {
                    Arc::make_mut(page)[within..within + part.len()].fill(0);
                }
            }
        };
        if whole.is_empty() {
            return edge(range);
        }
        edge(range.start..whole.start * PAGE);
        edge(whole.end * PAGE..range.end);
        let mut after = self.pages.split_off(&whole.start);
        self.pages.append(&mut after.split_off(&whole.end));
    }

    /// Makes a part of the file read as anything; what are holes may stay zeros.
    pub(super) fn discard(&mut self, range: &Range<u64>) {
        for (number, page) in self.pages.range_mut(range.start / PAGE..range.end.div_ceil(PAGE)) {
            let at = number * PAGE;
            let from = range.start.saturating_sub(at);
            let to = (range.end - at).min(PAGE);
            Arc::make_mut(page)[usize_of(from)..usize_of(to)].fill(MemoryStorage::DISCARDED);
        }
    }

    pub(crate) fn sector(&self, number: u64) -> Sector {
        let mut sector = EMPTY;
        self.read(&mut sector, number * SECTOR);
        sector
    }

    /// Replaces a sector; the length stays, and past it nothing changes.
    pub(crate) fn set_sector(&mut self, number: u64, sector: &Sector) {
        let kept = self.len.saturating_sub(number * SECTOR).min(SECTOR);
        if kept > 0 {
            self.write(&sector[..usize_of(kept)], number * SECTOR);
        }
    }

    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { offset, bytes } => self.write(bytes, *offset),
            Operation::WriteZeroes(range) if range.is_empty() => {}
            Operation::WriteZeroes(range) => {
                self.len = self.len.max(range.end);
                self.zero(range.clone());
            }
            Operation::PunchHole(range) => self.zero(self.inside(range)),
            Operation::Discard(range) => self.discard(&self.inside(range)),
            Operation::SetLen(len) => self.set_len(*len),
            Operation::Flush => {}
        }
    }

    /// The sectors that an operation may change.
    pub(crate) fn touched(&self, operation: &Operation) -> Range<u64> {
        let sectors = |range: &Range<u64>| range.start / SECTOR..range.end.div_ceil(SECTOR);
        match operation {
            Operation::Write { offset, bytes } => sectors(&(*offset..offset + bytes.len() as u64)),
            Operation::WriteZeroes(range)
            | Operation::PunchHole(range)
            | Operation::Discard(range) => sectors(range),
            Operation::SetLen(len) => {
                let held = self.pages.last_key_value().map_or(0, |(number, _)| number + 1);
                *len / SECTOR..(held * (PAGE / SECTOR)).max(len / SECTOR)
            }
            Operation::Flush => 0..0,
        }
    }

    /// How the part of the file that begins at `at` is stored, and where the next begins.
    pub(super) fn run_at(&self, at: u64) -> (RunKind, u64) {
        let first = at / PAGE;
        let mut next = self.pages.range(first..).map(|(number, _)| *number).peekable();
        let (kind, end) = match next.peek() {
            Some(number) if *number == first => {
                let run = (first..).zip(next).take_while(|(here, next)| here == next);
                (RunKind::Data, (first + run.count() as u64).saturating_mul(PAGE))
            }
            Some(number) => (RunKind::Hole, number * PAGE),
            None => (RunKind::Hole, self.len),
        };
        (kind, end.min(self.len))
    }

    /// Bytes that are stored, once so many more are written.
    pub(super) fn stored_with(&self, more: u64) -> u64 {
        self.pages.len() as u64 * PAGE + more
    }

    /// The sectors that may be other than zeros.
    pub(crate) fn held_sectors(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().flat_map(|number| {
            let first = number * (PAGE / SECTOR);
            first..first + PAGE / SECTOR
        })
    }

    pub(super) fn inside(&self, range: &Range<u64>) -> Range<u64> {
        range.start.min(self.len)..range.end.min(self.len)
    }

    fn page_mut(&mut self, number: u64) -> &mut Page {
        Arc::make_mut(self.pages.entry(number).or_insert_with(|| Arc::new(ZEROS)))
    }

    fn written(&self) -> impl Iterator<Item = (&u64, &Arc<Page>)> {
        self.pages.iter().filter(|(_, page)| ***page != ZEROS)
    }
}

impl PartialEq for SparseContent {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.written().eq(other.written())
    }
}

impl Eq for SparseContent {}

impl Hash for SparseContent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len.hash(state);
        self.written().for_each(|page| page.hash(state));
    }
}

/// A range of `len` bytes from `offset` page by page: the page, the byte in it, and the part of
/// the range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = usize_of(at % PAGE);
        let start = done;
        done = len.min(start + PAGE_LEN - within);
        Some((at / PAGE, within, start..done))
    })
}
