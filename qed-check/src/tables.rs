//! One image open for checking: the reader of its tables, and which of them are looked at.
//!
//! Knows where tables lie but not what is right or wrong about them.

use qed_io::Storage;
use qed_layout::{
    DirtyBits, FirstSector, PieceBuffer, Pieces, SUPPORTED_WITHOUT_LOG, TableReader, read,
};
use qed_spec::{AutoclearFeatures, L1Index, UNDO_RECORD_LEN_BYTES, UndoRecord};

use crate::error::CheckError;
use crate::layout::Layout;
use crate::space::Space;

/// One image open for checking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) layout: Layout,
    pub(crate) reader: TableReader<'a>,
    /// Cluster after the last that may be held for undo without being named.
    pub(crate) held_end: u64,
    /// How space that nothing names is judged.
    pub(crate) space: Space,
    /// The only tables that are looked at; all of them without it.
    pub(crate) marked: Option<&'a DirtyBits>,
}

impl<'a> Tables<'a> {
    /// Reads and checks the header. A journal was replayed before.
    pub(crate) fn open(storage: &'a dyn Storage) -> Result<Self, CheckError> {
        let file_len = storage.len().map_err(CheckError::Len)?;
        let sector = FirstSector::read(storage, file_len)?;
        let header = sector.header(SUPPORTED_WITHOUT_LOG).map_err(CheckError::Header)?;
        let layout = Layout::new(header, file_len);
        let reader = TableReader::new(storage, file_len, header.geometry().table_size_bytes());
        let held_end = held_end(storage, &layout, &sector)?;
        let space = Space::read(storage, &layout)?;
        Ok(Self { storage, layout, reader, held_end, space, marked: None })
    }

    /// The L1 table in pieces.
    pub(crate) fn l1_pieces(&self) -> Pieces<'a> {
        self.reader.pieces(self.layout.l1_offset())
    }

    /// The L2 table that starts at cluster `start` in pieces.
    pub(crate) fn l2_pieces(&self, start: u64) -> Pieces<'a> {
        self.reader.pieces(self.layout.offset_of(start))
    }

    /// Whether the table of a slot is looked at.
    pub(crate) fn covers(&self, l1: L1Index) -> bool {
        self.marked.is_none_or(|bits| bits.contains(l1))
    }

    /// Calls `each` with every slot of the L1 table that is looked at and not 0, in order.
    pub(crate) fn for_each_l1(
        &self,
        mut each: impl FnMut(L1Index, u64) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        self.reader.for_each(self.l1_pieces(), &mut PieceBuffer::default(), |slot, value| {
            let l1 = L1Index::new(slot);
            if self.covers(l1) { each(l1, value) } else { Ok(()) }
        })
    }
}

/// Where space ends that is held to undo a conversion in place.
// spec: QED-CONV-04
fn held_end(
    storage: &dyn Storage,
    layout: &Layout,
    sector: &FirstSector,
) -> Result<u64, CheckError> {
    let autoclear = layout.header.fields().autoclear_features;
    let end = UndoRecord::OFFSET.get() + UNDO_RECORD_LEN_BYTES as u64;
    if !autoclear.contains(AutoclearFeatures::CONVERSION_UNDO) || layout.file_len < end {
        return Ok(0);
    }
    let mut bytes = [0; UNDO_RECORD_LEN_BYTES];
    read(storage, &mut bytes, UndoRecord::OFFSET.get())?;
    let record =
        UndoRecord::parse(&bytes).ok().filter(|record| record.new_sector == *sector.bytes());
    Ok(record.map_or(0, |record| record.old_len.div_ceil(layout.cluster_size())))
}
