//! What the records of a log may say: lists of tables, searched from end to end.

use std::collections::BTreeMap;
use std::ops::Range;

use qed_spec::Header;

use super::Log;
use crate::sparse::SparseContent;

/// The tables as the records so far have them.
pub(super) struct Judge {
    cluster: u64,
    table_len: u64,
    header_end: u64,
    l1: Range<u64>,
    /// Slots and the tables that they name.
    tables: BTreeMap<u64, u64>,
    /// What records have named as data so far.
    data: Vec<Range<u64>>,
    log: Log,
}

impl Judge {
    pub(super) fn new(header: &Header, content: &SparseContent) -> Self {
        let geometry = header.geometry();
        let l1 = header.fields().l1_table_offset.get();
        let needed = geometry.l1_entries_for(header.image_size());
        let mut judge = Self {
            cluster: geometry.cluster_size_bytes(),
            table_len: geometry.table_size_bytes(),
            header_end: header.header_area_len_bytes(),
            l1: l1..l1 + geometry.table_size_bytes(),
            tables: BTreeMap::new(),
            data: Vec::new(),
            log: Log { is_repeatable: true, ..Log::default() },
        };
        let slots = content.words(l1..l1 + 8 * needed).filter(|(_, table)| judge.is_table(*table));
        judge.tables = slots.collect();
        judge
    }

    /// Takes a commit over; none where it says what it must not.
    pub(super) fn commit<'a>(
        &mut self,
        size: u64,
        records: impl Iterator<Item = &'a [u64; 4]>,
    ) -> Option<()> {
        let len = size.checked_mul(self.cluster).filter(|len| *len <= 1 << 63)?;
        if len < self.log.len.max(self.l1.end) {
            return None;
        }
        self.log.len = len;
        self.log.commits += 1;
        for record in records {
            self.record(*record)?;
        }
        Some(())
    }

    /// The log, if the file is long enough for all tables at its end.
    pub(super) fn into_log(self) -> Option<Log> {
        let is_long = |table: &u64| table + self.table_len <= self.log.len;
        let fits = self.log.commits == 0 || self.tables.values().all(is_long);
        fits.then_some(self.log)
    }

    fn record(&mut self, [kind, count, at, value]: [u64; 4]) -> Option<()> {
        let len = count.checked_mul(self.cluster)?;
        let is_known = match kind {
            1 => count == 1 && self.is_slot(at) && self.links(at, value),
            2 => count > 0 && self.is_in_table(at, count) && self.is_free(value, len),
            3 | 4 => count > 0 && value == 0 && self.is_in_table(at, count),
            5 => count > 0 && value == 0 && self.is_inside(at, len),
            _ => false,
        };
        if !is_known {
            return None;
        }
        match kind {
            1 => self.relink(at, value),
            2 => self.data.push(value..value + len),
            _ => {}
        }
        for number in 0..if kind == 5 { 0 } else { count } {
            let entry = match kind {
                1 => value,
                2 => value + number * self.cluster,
                3 => 1,
                _ => 0,
            };
            self.log.slots.insert(at + 8 * number, entry);
        }
        Some(())
    }

    /// Names another table in a slot. A recovery that got so far and no further leaves a log that
    /// does not fit the tables, if the log has records of the one that was there, or names what
    /// becomes a table.
    // spec: QED-JRN-25
    fn relink(&mut self, at: u64, table: u64) {
        let slot = (at - self.l1.start) / 8;
        let old = self.tables.remove(&slot).filter(|old| *old != table);
        let is_set = |old: u64| self.log.slots.range(old..old + self.table_len).next().is_some();
        let is_named = |it: &Range<u64>| table > 0 && overlap(it, &self.place(table));
        if old.is_some_and(is_set) || self.data.iter().any(is_named) {
            self.log.is_repeatable = false;
        }
        self.tables.extend((table > 0).then_some((slot, table)));
    }

    fn is_slot(&self, at: u64) -> bool {
        at.is_multiple_of(8) && self.l1.contains(&at)
    }

    fn links(&self, at: u64, table: u64) -> bool {
        let slot = (at - self.l1.start) / 8;
        let place = table..table.saturating_add(self.table_len);
        let others = self.tables.iter().filter(|(other, _)| **other != slot);
        let is_clear = others.map(|(_, other)| self.place(*other)).all(|it| !overlap(&it, &place));
        table == 0 || self.is_table(table) && place.end <= self.log.len && is_clear
    }

    fn is_in_table(&self, at: u64, count: u64) -> bool {
        let end = count.checked_mul(8).and_then(|len| at.checked_add(len));
        let Some(end) = end.filter(|end| *end <= self.log.len) else { return false };
        let holds = |table: &u64| *table <= at && end <= table + self.table_len;
        at.is_multiple_of(8) && self.tables.values().any(holds)
    }

    fn is_free(&self, at: u64, len: u64) -> bool {
        let place = at..at.saturating_add(len);
        let tables = self.tables.values().map(|table| self.place(*table));
        self.is_inside(at, len)
            && !overlap(&place, &self.l1)
            && tables.into_iter().all(|table| !overlap(&table, &place))
    }

    fn is_inside(&self, at: u64, len: u64) -> bool {
        let end = at.checked_add(len).filter(|end| *end <= self.log.len);
        at.is_multiple_of(self.cluster) && at >= self.header_end && end.is_some()
    }

    /// Whether a table could lie there, in a file of any length.
    fn is_table(&self, at: u64) -> bool {
        let Some(end) = at.checked_add(self.table_len) else { return false };
        at.is_multiple_of(self.cluster) && at >= self.header_end && !overlap(&(at..end), &self.l1)
    }

    fn place(&self, table: u64) -> Range<u64> {
        table..table + self.table_len
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}
