//! Where the part of the image file that is in use ends, asked of the tables in the file.
//!
//! Holes in tables are not read: a sparse file costs what it holds, not what it claims.

use std::ops::Range;

use qed_spec::{Header, L1Index};

use crate::error::{ImageError, IoAction};
use crate::map::pieces::for_each_piece;
use crate::map::tables::Tables;

impl Tables {
    /// End of the last cluster that the header or a table names in a file of `file_len` bytes that
    /// has all entries.
    ///
    /// An entry that breaks a rule counts as if it did not: what it may have meant is kept. Where a slot
    /// past the end of the disk names something, all of the file is.
    pub(crate) fn end_in_use(&self, header: &Header, file_len: u64) -> Result<u64, ImageError> {
        let table_size = self.geometry.table_size_bytes();
        let l1_end = header.fields().l1_table_offset.get() + table_size;
        let mut end = l1_end.max(header.header_area_len_bytes());
        for l1 in 0..self.l1.len() {
            if let Some(table) = self.table(L1Index::new(l1))? {
                let start = self.geometry.host_offset(table).get();
                let table = start..start + table_size;
                end = end.max(table.end).max(self.end_named_in(table, file_len)?);
            }
        }
        if self.l1.first_past_disk(&*self.storage)?.is_some() {
            // What another program left there leads to somewhere, too.
            end = end.max(file_len);
        }
        Ok(end.next_multiple_of(self.geometry.cluster_size_bytes()))
    }

    /// End of the last cluster that the entries of a table name; 0 if they name none.
    fn end_named_in(&self, table: Range<u64>, file_len: u64) -> Result<u64, ImageError> {
        let mut end = 0;
        for_each_piece(&*self.storage, table, IoAction::ReadTable, |_, slots| {
            let ends = slots.chunks_exact(8).filter_map(|value| {
                let value = u64::from_le_bytes(value.try_into().expect("chunks of eight"));
                // 0 and 1 name no cluster, and the first cluster is the header's.
                let end = value.checked_add(self.geometry.cluster_size_bytes())?;
                (value > 1 && end <= file_len).then_some(end)
            });
            end = ends.fold(end, u64::max);
            Ok(())
        })?;
        Ok(end)
    }
}
