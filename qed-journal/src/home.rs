//! Writes the slots of an overlay to where they belong. Knows no block and no order of writes.

use std::io;

use qed_io::Storage;
use qed_spec::HostOffset;

use crate::overlay::Overlay;

/// What is read, patched and written at a time is whole pieces of this size: a table is made of
/// them, whatever the shape of the image.
const PIECE_LEN_BYTES: u64 = 4096;

/// Pieces that follow each other go in one write, up to this many bytes.
const WRITE_MAX_BYTES: u64 = 256 << 10;

/// Where writing home failed, and how.
#[derive(Debug)]
pub(crate) struct HomeFault {
    pub(crate) at: HostOffset,
    pub(crate) source: io::Error,
}

/// Writes every slot of `overlay`, in the order of the file. Nothing is durable yet.
///
/// The pieces that hold the slots lie inside the file.
// spec: QED-JRN-22
pub(crate) fn write_home(storage: &dyn Storage, overlay: &Overlay) -> Result<(), HomeFault> {
    let mut buf = Vec::new();
    let mut from = 0;
    while let Some(touched) = overlay.next_touched(from) {
        let start = touched - touched % PIECE_LEN_BYTES;
        let end = end_of_write(overlay, start);
        let at = HostOffset::new(start);
        let fault = |source| HomeFault { at, source };
        buf.resize(usize::try_from(end - start).expect("at most the largest write"), 0);
        if !overlay.covers(start, end) {
            storage.read_at(&mut buf, start).map_err(fault)?;
        }
        overlay.patch(&mut buf, at);
        storage.write_at(&buf, start).map_err(fault)?;
        from = end;
    }
    Ok(())
}

/// The end of the touched pieces that follow the one at `start`.
fn end_of_write(overlay: &Overlay, start: u64) -> u64 {
    let mut end = start + PIECE_LEN_BYTES;
    while end - start < WRITE_MAX_BYTES
        && overlay.next_touched(end).is_some_and(|next| next < end + PIECE_LEN_BYTES)
    {
        end += PIECE_LEN_BYTES;
    }
    end
}
