//! Reading a range of the image file piece by piece, without its holes.

use std::ops::Range;

use qed_io::{RunKind, Storage};
use qed_spec::HostOffset;

use crate::error::{ImageError, IoAction};

/// Bytes that are read at a time, at most.
const PIECE: u64 = 64 << 10;

/// Table slots are read whole: pieces begin a multiple of this behind the start of the range.
const SLOT: u64 = 8;

/// Calls `visit` with what `range` of the file holds and where, in order. Holes are left out: they
/// are zeros.
pub(crate) fn for_each_piece(
    storage: &dyn Storage,
    range: Range<u64>,
    action: IoAction,
    mut visit: impl FnMut(HostOffset, &[u8]) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let longest = PIECE.min(range.end.saturating_sub(range.start));
    let mut buf = vec![0; usize::try_from(longest).expect("at most 64 KiB")];
    let mut at = range.start;
    while at < range.end {
        let fault = |at| ImageError::io(action, HostOffset::new(at));
        let run = storage.run_at(at).map_err(fault(at))?;
        let len = run.len.min(range.end - at);
        let is_last = at + len == range.end;
        let skipped = if is_last { len } else { len - len % SLOT };
        if run.kind == RunKind::Hole && skipped > 0 {
            at += skipped;
            continue;
        }
        let data_end = at + len.max(1).next_multiple_of(SLOT).min(range.end - at);
        while at < data_end {
            let len = PIECE.min(data_end - at);
            let piece = &mut buf[..usize::try_from(len).expect("at most 64 KiB")];
            storage.read_at(piece, at).map_err(fault(at))?;
            visit(HostOffset::new(at), piece)?;
            at += len;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use qed_io::MemoryStorage;

    use super::*;

    #[test]
    fn every_byte_that_is_not_a_hole_comes_once() {
        let mut bytes = vec![0; 300_000];
        for at in [0, 7, 100, 65_535, 65_536, 200_000, 299_992, 299_999] {
            bytes[at] = 1;
        }
        let storage = MemoryStorage::new(bytes.clone());
        for range in [0..300_000, 8..16, 96..262_208, 299_992..300_000, 5..5] {
            let mut seen = vec![0; 300_000];
            for_each_piece(&storage, range.clone(), IoAction::ReadTable, |at, piece| {
                let at = usize::try_from(at.get()).expect("small");
                assert!((at - usize::try_from(range.start).expect("small")).is_multiple_of(8));
                seen[at..at + piece.len()].copy_from_slice(piece);
                Ok(())
            })
            .expect("memory does not fail");
            let range = usize::try_from(range.start).expect("small")
                ..usize::try_from(range.end).expect("small");
            assert!(seen[range.clone()] == bytes[range]);
        }
    }
}
