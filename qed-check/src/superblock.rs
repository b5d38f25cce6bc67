//! The two copies of the superblock as bytes. What they mean is asked of qed-spec.

use qed_io::Storage;
use qed_spec::{SUPERBLOCK_LEN_BYTES, SuperblockCopy};

use crate::error::CheckError;
use crate::layout::Layout;
use crate::tables::read;

/// The bytes of copies A and B; none where the image has no room for them.
// spec: QED-SB-01
pub(crate) fn read_copies(
    storage: &dyn Storage,
    layout: &Layout,
) -> Result<Option<[[u8; SUPERBLOCK_LEN_BYTES]; 2]>, CheckError> {
    let end = SuperblockCopy::B.offset().get() + SUPERBLOCK_LEN_BYTES as u64;
    if !SuperblockCopy::both_fit(&layout.header) || layout.file_len < end {
        return Ok(None);
    }
    let mut copies = [[0; SUPERBLOCK_LEN_BYTES]; 2];
    for (copy, bytes) in [SuperblockCopy::A, SuperblockCopy::B].into_iter().zip(&mut copies) {
        read(storage, bytes, copy.offset().get())?;
    }
    Ok(Some(copies))
}
