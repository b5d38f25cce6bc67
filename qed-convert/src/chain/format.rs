//! The formats of the images of a chain, and their names.

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
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
