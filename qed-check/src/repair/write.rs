//! The writes of a repair: the header's bits, table entries, and the storage's errors with place.

use qed_io::Storage;
use qed_layout::read;
use qed_spec::{HEADER_SECTOR_LEN_BYTES, HostOffset, TableEntry};
use zerocopy::IntoBytes;

use super::features;
use crate::error::CheckError;
use crate::tables::Tables;

/// Makes it durable that the image is being written: no unknown autoclear bits, and NEED_CHECK if
/// `dirty`.
// spec: QED-FEAT-03, QED-CONS-02
pub(super) fn mark(tables: &Tables<'_>, dirty: bool) -> Result<(), CheckError> {
    write_features(tables, dirty)
}

/// Clears NEED_CHECK once everything else is durable.
// spec: QED-CONS-03
pub(super) fn unmark(tables: &Tables<'_>) -> Result<(), CheckError> {
    // The writer that crashed may have left table writes that no flush has covered yet.
    flush(tables.storage)?;
    write_features(tables, false)
}

// spec: QED-HDR-09
fn write_features(tables: &Tables<'_>, dirty: bool) -> Result<(), CheckError> {
    let layout = &tables.layout;
    let (features, autoclear_features) = features(tables, dirty);
    let fields = qed_spec::HeaderFields { features, autoclear_features, ..*layout.header.fields() };
    if fields == *layout.header.fields() {
        return Ok(());
    }
    let header = layout.header.with_fields(fields, layout.file_len).map_err(CheckError::Header)?;
    let mut sector = [0; HEADER_SECTOR_LEN_BYTES];
    read(tables.storage, &mut sector, 0)?;
    write(tables.storage, &header.encode_sector(&sector), 0)?;
    flush(tables.storage)
}

/// Writes the entries of one piece, which starts at byte `at`, that differ from what was read.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The smallest run of entries that holds all changes.
    run: Option<(usize, usize)>,
}

impl Changes {
    pub(super) fn note(&mut self, index: usize) {
        let (first, _) = self.run.unwrap_or((index, index));
        self.run = Some((first, index));
    }

    pub(super) fn write(
        &self,
        storage: &dyn Storage,
        entries: &[TableEntry],
        at: u64,
    ) -> Result<(), CheckError> {
        match self.run {
            Some((first, last)) => {
                write(storage, entries[first..=last].as_bytes(), at + first as u64 * 8)
            }
            None => Ok(()),
        }
    }
}

pub(super) fn write(storage: &dyn Storage, bytes: &[u8], at: u64) -> Result<(), CheckError> {
    storage.write_at(bytes, at).map_err(|source| CheckError::Write {
        at: HostOffset::new(at),
        len: bytes.len() as u64,
        source,
    })
}

pub(super) fn set_len(storage: &dyn Storage, len: u64) -> Result<(), CheckError> {
    storage.set_len(len).map_err(|source| CheckError::SetLen { len, source })
}

pub(super) fn flush(storage: &dyn Storage) -> Result<(), CheckError> {
    storage.flush().map_err(CheckError::Flush)
}
