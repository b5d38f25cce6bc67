//! Where the part of the image file that is in use ends, asked of the tables in the file.
//!
//! Holes in tables are not read: a sparse file costs what it holds, not what it claims.

use qed_layout::{PieceBuffer, Roots, TableReader};
use qed_spec::{Header, L1Index};

use crate::error::ImageError;
use crate::map::tables::Tables;

impl Tables {
    /// End of the last cluster that the header or a table names in a file of `file_len` bytes that
    /// has all entries.
    ///
    /// An entry that breaks a rule counts as if it did not: what it may have meant is kept. Where a slot
    /// past the end of the disk names something, all of the file is.
    pub(crate) fn end_in_use(&self, header: &Header, file_len: u64) -> Result<u64, ImageError> {
        let table_size = self.geometry.table_size_bytes();
        let reader = TableReader::new(&*self.storage, file_len, table_size);
        let mut buffer = PieceBuffer::default();
        let mut end = Roots::of(header).end();
        for l1 in 0..self.l1.len() {
            let Some(table) = self.table(L1Index::new(l1))? else { continue };
            let table = self.geometry.host_offset(table);
            end = end.max(table.get() + table_size);
            reader.for_each(reader.pieces(table), &mut buffer, |_, value| {
                // 1 names no cluster, and the first cluster is the header's.
                let named = value.checked_add(self.geometry.cluster_size_bytes());
                end = end.max(named.filter(|named| value > 1 && *named <= file_len).unwrap_or(0));
                Ok::<(), ImageError>(())
            })?;
        }
        if self.l1.first_past_disk(&*self.storage)?.is_some() {
            // What another program left there leads to somewhere, too.
            end = end.max(file_len);
        }
        Ok(end.next_multiple_of(self.geometry.cluster_size_bytes()))
    }
}
