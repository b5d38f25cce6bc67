//! The format of the backing file that a QED image has stored beside its header: in the superblock,
//! or in the anchor of a header area without room for one. Knows nothing of which formats are read.

use std::io;

use qed_io::Storage;
use qed_spec::{
    ANCHOR_LEN_BYTES, Anchor, BackingName, Header, HostOffset, SUPERBLOCK_LEN_BYTES,
    SuperblockChoice, SuperblockCopy, SuperblockError,
};

/// What is stored for the backing file `name`: none where nothing is, or what is stored describes
/// another name or is not believed.
pub type StoredFormat = Result<Option<String>, SuperblockError>;

/// Reads what the image with `header` has stored for its backing file `name`.
///
/// # Errors
/// The storage's error. A stored format that breaks a rule is none: only who needs it must know.
// spec: QED-BACK-05, QED-SB-15, QED-SB-19
pub fn read_stored_format(
    storage: &dyn Storage,
    header: &Header,
    name: BackingName<'_>,
) -> io::Result<StoredFormat> {
    let owned = |format: Option<&str>| format.map(str::to_owned);
    if SuperblockCopy::both_fit(header) {
        let a = bytes_at::<SUPERBLOCK_LEN_BYTES>(storage, SuperblockCopy::A.offset())?;
        let b = bytes_at::<SUPERBLOCK_LEN_BYTES>(storage, SuperblockCopy::B.offset())?;
        // Of copies without a choice neither is believed.
        let choice = SuperblockChoice::new(&a, &b).ok();
        let current = choice.as_ref().and_then(SuperblockChoice::current);
        return Ok(current.map_or(Ok(None), |(_, current)| current.backing_format(name).map(owned)));
    }
    if !Anchor::fits(header) {
        return Ok(Ok(None));
    }
    let bytes = bytes_at::<ANCHOR_LEN_BYTES>(storage, Anchor::OFFSET)?;
    let stored = Anchor::parse(&bytes).ok().and_then(|anchor| anchor.backing_format);
    Ok(Ok(owned(stored.and_then(|stored| stored.format_of(name)))))
}

/// Bytes of the header area, all of which lies inside the file.
fn bytes_at<const LEN: usize>(storage: &dyn Storage, at: HostOffset) -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    storage.read_at(&mut bytes, at.get())?;
    Ok(bytes)
}
