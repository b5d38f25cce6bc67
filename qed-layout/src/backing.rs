//! The name of the backing file, and the format that is stored for it: in the superblock, or in the
//! anchor of a header area without room for one. Knows nothing of which formats are read.

use qed_io::Storage;
use qed_spec::{ANCHOR_LEN_BYTES, Anchor, BackingName, Header, SuperblockChoice, SuperblockError};

use crate::error::{ReadError, read};
use crate::superblock::SuperblockBytes;

/// What is stored for a backing file name: `None` where nothing is, or what is stored describes another
/// name or is not believed.
pub type StoredFormat = Result<Option<String>, SuperblockError>;

/// Reads the backing file name, wherever in the header area it lies; `None` without a backing file.
/// Whether the bytes are a legal name is not looked at.
///
/// # Errors
/// The storage's.
///
/// # Panics
/// Never: the header was checked, so a name has at most 4095 bytes.
pub fn read_backing_name(
    storage: &dyn Storage,
    header: &Header,
) -> Result<Option<Vec<u8>>, ReadError> {
    let Some((offset, len)) = header.backing_name_place() else {
        return Ok(None);
    };
    let mut name = vec![0; usize::try_from(len).expect("at most 4095")];
    read(storage, &mut name, offset.into())?;
    Ok(Some(name))
}

/// Reads the anchor; `None` where an image with `header` has none.
///
/// # Errors
/// The storage's.
// spec: QED-SB-18
pub fn read_anchor(
    storage: &dyn Storage,
    header: &Header,
) -> Result<Option<[u8; ANCHOR_LEN_BYTES]>, ReadError> {
    if !Anchor::fits(header) {
        return Ok(None);
    }
    let mut bytes = [0; ANCHOR_LEN_BYTES];
    read(storage, &mut bytes, Anchor::OFFSET.get())?;
    Ok(Some(bytes))
}

/// Reads what the image with `header` has stored for its backing file `name`.
///
/// # Errors
/// The storage's. A stored format that breaks a rule is no error: only a caller that needs it must know.
// spec: QED-BACK-05, QED-SB-15, QED-SB-19
pub fn read_stored_format(
    storage: &dyn Storage,
    header: &Header,
    name: BackingName<'_>,
) -> Result<StoredFormat, ReadError> {
    let owned = |format: Option<&str>| format.map(str::to_owned);
    if let Some(bytes) = SuperblockBytes::read(storage, header)? {
        // Of copies without a choice neither is believed.
        let choice = bytes.choose().ok();
        let current = choice.as_ref().and_then(SuperblockChoice::current);
        return Ok(current.map_or(Ok(None), |(_, current)| current.backing_format(name).map(owned)));
    }
    let bytes = read_anchor(storage, header)?;
    let anchor = bytes.as_ref().and_then(|bytes| Anchor::parse(bytes).ok());
    let stored = anchor.and_then(|anchor| anchor.backing_format);
    Ok(Ok(owned(stored.and_then(|stored| stored.format_of(name)))))
}
