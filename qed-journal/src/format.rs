//! Laying out a new ring.

use std::io;

use qed_io::Storage;
use qed_spec::JournalRing;

/// Bytes written at a time.
const PIECE_LEN_BYTES: u64 = 1 << 20;

/// Fills the place of a new ring with zeros and flushes, before the superblock that names it is
/// written.
///
/// The zeros are written, not left as a hole: a commit into space that the file system has yet to
/// give out makes it write a journal of its own.
///
/// # Errors
/// The error of the storage.
pub fn format(storage: &dyn Storage, ring: &JournalRing) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(PIECE_LEN_BYTES.min(ring.len_bytes())).unwrap_or(0)];
    let mut at = ring.offset().get();
    while at < ring.end().get() {
        let len = (ring.end().get() - at).min(PIECE_LEN_BYTES);
        storage.write_at(&zeros[..usize::try_from(len).unwrap_or(0)], at)?;
        at += len;
    }
    storage.flush()
}
