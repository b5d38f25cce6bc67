//! Walks the tables of both formats in lock step: they map every cluster alike.

use qed_io::Storage;
use qed_layout::SUPPORTED_WITHOUT_LOG;
use qed_spec::Header;

use super::plan::Places;
use super::translate::for_each_entry;
use crate::in_place::error::{InPlaceError, Step};
use crate::in_place::step::{Sector, len};
use crate::qcow2::Qcow2Header;

/// Compares the QCOW2 image of `header`, in the first `file_len` bytes, with the QED image that
/// begins with `sector`.
///
/// # Errors
/// [`InPlaceError::Tables`] for another number of tables, [`InPlaceError::Verify`] for the first
/// cluster that differs.
// spec: QED-CONV-02, QED-CONV-06
pub(super) fn compare(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
    places: &Places,
    sector: &Sector,
) -> Result<(), InPlaceError> {
    let qed = Header::parse(sector, len(storage)?, SUPPORTED_WITHOUT_LOG)?;
    let mut tables = Lookup::new(storage, &qed)?;
    // As many tables as the entries take: an image that somebody made up costs no more to refuse.
    let expected = (places.l1 - places.tables) / places.geometry.table_size_bytes();
    let found = tables.l1.iter().filter(|entry| **entry != 0).count() as u64;
    if found != expected {
        return Err(InPlaceError::Tables { expected, found });
    }
    let mut entries = 0;
    for_each_entry(storage, header, file_len, places, |entry| {
        entries += 1;
        let found = tables.entry(entry.guest)?;
        if found == entry.value {
            return Ok(());
        }
        Err(InPlaceError::Verify { cluster: entry.guest, expected: entry.value, found })
    })?;
    // Each entry was found; there is none besides.
    match tables.first_after(entries)? {
        Some((cluster, found)) => Err(InPlaceError::Verify { cluster, expected: 0, found }),
        None => Ok(()),
    }
}

/// The tables of the QED image, one L2 table in memory.
struct Lookup<'a> {
    storage: &'a dyn Storage,
    l1: Vec<u64>,
    l2: Vec<u64>,
    /// The L1 slot of the table in memory.
    current: Option<usize>,
    per_table: u64,
}

impl<'a> Lookup<'a> {
    fn new(storage: &'a dyn Storage, header: &Header) -> Result<Self, InPlaceError> {
        let per_table = header.geometry().table_entries();
        let l1 = read_table(storage, header.fields().l1_table_offset.get(), per_table)?;
        Ok(Self { storage, l1, l2: Vec::new(), current: None, per_table })
    }

    fn entry(&mut self, guest: u64) -> Result<u64, InPlaceError> {
        let slot = usize::try_from(guest / self.per_table).unwrap_or(usize::MAX);
        self.load(slot)?;
        let index = usize::try_from(guest % self.per_table).expect("inside a table");
        Ok(self.l2.get(index).copied().unwrap_or(0))
    }

    /// A slot past the end of the L1 table, or one that names none, has no entries.
    fn load(&mut self, slot: usize) -> Result<(), InPlaceError> {
        if self.current == Some(slot) {
            return Ok(());
        }
        self.l2 = match self.l1.get(slot) {
            None | Some(0) => Vec::new(),
            Some(at) => read_table(self.storage, *at, self.per_table)?,
        };
        self.current = Some(slot);
        Ok(())
    }

    /// The entry after the first `expected`, counted over all tables; none if that is all.
    fn first_after(&mut self, expected: u64) -> Result<Option<(u64, u64)>, InPlaceError> {
        let mut left = expected;
        for slot in 0..self.l1.len() {
            if self.l1[slot] == 0 {
                continue;
            }
            self.load(slot)?;
            for (index, value) in (0..).zip(&self.l2).filter(|(_, value)| **value != 0) {
                match left.checked_sub(1) {
                    Some(rest) => left = rest,
                    None => return Ok(Some((slot as u64 * self.per_table + index, *value))),
                }
            }
        }
        Ok(None)
    }
}

fn read_table(storage: &dyn Storage, at: u64, entries: u64) -> Result<Vec<u64>, InPlaceError> {
    let mut bytes = vec![0; usize::try_from(entries * 8).expect("at most 32 MiB")];
    storage.read_at(&mut bytes, at).map_err(InPlaceError::io(Step::Read, at))?;
    let (entries, _) = bytes.as_chunks();
    Ok(entries.iter().map(|entry| u64::from_le_bytes(*entry)).collect())
}
