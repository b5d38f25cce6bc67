//! A backing file as an image records it: a name and a format. Apart from all owners, since the head
//! records it and the gate is asked for it.

/// The backing file that an image is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateBacking {
    /// The name to record.
    pub name: Vec<u8>,
    /// Raw is recorded in any image, other formats in all but classic ones.
    pub format: BackingFormat,
}

/// The format of a backing file, always stated and never guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackingFormat {
    /// The image says that its backing file is raw.
    Raw,
    /// The image says that its backing file has the format of this name, as QEMU calls it; see
    /// QED-SB-16 for what names there are. A classic image has no place for it.
    Named(String),
    /// The image does not say; the gate's owner must.
    Unstated,
}
