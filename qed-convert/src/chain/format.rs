//! The formats of the images of a chain: their names, and what their magic can tell.

use qed_io::Storage;
use qed_spec::RawHeader;

/// The format of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// The file is the virtual disk.
    Raw,
    /// QEMU Enhanced Disk.
    Qed,
    /// QCOW2, version 2 or 3.
    Qcow2,
}

const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

impl ImageFormat {
    /// The format that QEMU calls `name`, if it is one of these.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Raw, Self::Qed, Self::Qcow2].into_iter().find(|one| one.name().as_bytes() == name)
    }

    /// QEMU's name for the format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qed => "qed",
            Self::Qcow2 => "qcow2",
        }
    }

    /// The format that the first bytes of `storage` look like; raw if they look like no other.
    ///
    /// A guest can write any magic into a raw disk, so this is a guess: it may choose a format only
    /// where whoever runs the program said so.
    ///
    /// # Errors
    /// The storage's error.
    pub fn recognise(storage: &dyn Storage) -> std::io::Result<Self> {
        Ok(match magic(storage)? {
            Some(RawHeader::MAGIC) => Self::Qed,
            Some(QCOW2_MAGIC) => Self::Qcow2,
            _ => Self::Raw,
        })
    }

    /// Whether the magic of `storage` allows that it has this format; anything can be raw.
    pub(super) fn fits(self, storage: &dyn Storage) -> std::io::Result<bool> {
        Ok(self == Self::Raw || Self::recognise(storage)? == self)
    }
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

fn magic(storage: &dyn Storage) -> std::io::Result<Option<[u8; 4]>> {
    let mut magic = [0; 4];
    if storage.len()? < magic.len() as u64 {
        return Ok(None);
    }
    storage.read_at(&mut magic, 0)?;
    Ok(Some(magic))
}
