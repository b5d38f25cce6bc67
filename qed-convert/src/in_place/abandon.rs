//! Taking away what a conversion left that was not finished: the image is QCOW2.

use qed_io::Storage;

use super::area::RECORD_AREA_START;
use crate::in_place::error::{InPlaceError, Step};
use crate::in_place::step::{flush, len, set_len, write};

/// Cuts the file to `end` and zeroes the `area` bytes that the conversion wrote in cluster 0.
///
/// The record goes last: as long as it is there, whoever comes next knows what the tail is.
// spec: QED-CONV-02
pub(super) fn clean(storage: &dyn Storage, end: u64, area: u64) -> Result<(), InPlaceError> {
    // Step "cut": a tail would show up as data where the file is allocated in advance.
    if len(storage)? > end {
        set_len(storage, Step::Cut, end)?;
        flush(storage, Step::Cut)?;
    }
    // Step "erase".
    let zeros = vec![0; usize::try_from(area).expect("at most 14 KiB")];
    write(storage, Step::Erase, &zeros, RECORD_AREA_START)?;
    flush(storage, Step::Erase)
}
