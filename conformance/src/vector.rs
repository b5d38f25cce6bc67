//! What a vector is: an image as text, and what is expected of a program that opens it. Owns the form of
//! the files; knows no implementation.

mod expect;
mod lay;
mod load;
mod rules;
mod run;
mod word_or;

pub(crate) use expect::FREE_IS_LEAKED;
pub use expect::{
    AnchorExpect, BackingName, CheckOutcome, Content, ContentBytes, Contents, Expect, MapKind,
    MapRun, Mapping, Opening, Places, QemuDiffers, Rejected, StoredFormat, SuperblockCurrent,
    SuperblockExpect,
};
pub use lay::{IMAGE_NAME, lay};
pub use load::{LoadError, VectorError, VectorProblem, load};
pub use rules::Contradiction;
pub use run::{Bytes, Run};

use serde::Deserialize;

use word_or::WordOr;

/// One image and what is expected of an implementation that opens it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// Its name, unique over all files: lower case words and numbers joined with `-`.
    pub name: String,
    /// The clauses that it is about.
    pub clauses: Vec<String>,
    /// What is special about the image, in one line.
    pub what: String,
    /// Bytes of the image file. What is not given is zero.
    pub file_len: u64,
    /// Whether the image lies on a block device of that length.
    #[serde(default)]
    pub device: bool,
    /// The header at byte 0, cut off by the end of the file.
    #[serde(default)]
    pub header: Header,
    /// Bytes that are laid over the header and over each other, in order.
    #[serde(default)]
    pub runs: Vec<Run>,
    /// Files beside the image.
    #[serde(default)]
    pub files: Vec<VirtualDisk>,
    /// The formats of the backing files as the program that opens the image states them, the first below
    /// the image first.
    #[serde(default)]
    pub backing_format: BackingFormats,
    /// What is expected.
    pub expect: Expect,
    /// How QEMU differs from that; none if it does not.
    pub qemu: Option<QemuDiffers>,
}

/// The 64 bytes at the start of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WordOr<HeaderFields>")]
pub enum Header {
    /// There are none.
    Absent,
    /// The magic and these fields.
    Fields(HeaderFields),
}

/// The fields of a header. Without any it is that of a disk of 1 MiB in clusters of 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderFields {
    /// Bytes.
    pub cluster_size: u32,
    /// Clusters.
    pub table_size: u32,
    /// Clusters.
    pub header_size: u32,
    /// Incompatible bits.
    pub features: u64,
    /// Compatible bits.
    pub compat_features: u64,
    /// Autoclear bits.
    pub autoclear_features: u64,
    /// Bytes from the start of the file.
    pub l1_table_offset: u64,
    /// Bytes.
    pub image_size: u64,
    /// Bytes from the start of the file.
    pub backing_filename_offset: u32,
    /// Bytes.
    pub backing_filename_size: u32,
}

/// A file beside the image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualDisk {
    /// Its name in the folder of the image.
    pub name: String,
    /// Bytes.
    pub len: u64,
    /// A QED header at byte 0; without one the file is raw, or what the runs say.
    #[serde(default = "absent")]
    pub header: Header,
    /// Bytes that are laid over it, in order.
    #[serde(default)]
    pub runs: Vec<Run>,
}

/// Formats by their names; one name may stand without its list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "WordOr<Vec<String>>")]
pub struct BackingFormats(pub Vec<String>);

impl Vector {
    /// Whether the image names a backing file that cannot be opened, by what is expected here: it
    /// is not there, or nothing of the disk can be read. Then only the image alone can be opened.
    #[must_use]
    pub fn stands_alone(&self, expect: &Expect) -> bool {
        let Header::Fields(fields) = &self.header else { return false };
        let is_unreadable = expect.content == Some(Contents::Fail);
        fields.features & 1 != 0 && (self.files.is_empty() || is_unreadable)
    }

    /// Bytes of the virtual disk, as far as the vector says.
    #[must_use]
    pub fn disk_len(&self) -> Option<u64> {
        let stated = match &self.header {
            Header::Fields(fields) => Some(fields.image_size),
            Header::Absent => None,
        };
        self.expect.size.or(stated)
    }
}

impl Default for Header {
    fn default() -> Self {
        Self::Fields(HeaderFields::default())
    }
}

impl TryFrom<WordOr<HeaderFields>> for Header {
    type Error = String;

    fn try_from(value: WordOr<HeaderFields>) -> Result<Self, String> {
        match value {
            WordOr::Value(fields) => Ok(Self::Fields(fields)),
            WordOr::Word(word) if word == "none" => Ok(Self::Absent),
            WordOr::Word(word) => {
                Err(format!("a header is its fields or \"none\", not \"{word}\""))
            }
        }
    }
}

impl Default for HeaderFields {
    fn default() -> Self {
        Self {
            cluster_size: 65536,
            table_size: 4,
            header_size: 1,
            features: 0,
            compat_features: 0,
            autoclear_features: 0,
            l1_table_offset: 65536,
            image_size: 1 << 20,
            backing_filename_offset: 0,
            backing_filename_size: 0,
        }
    }
}

impl From<WordOr<Vec<String>>> for BackingFormats {
    fn from(value: WordOr<Vec<String>>) -> Self {
        match value {
            WordOr::Word(word) => Self(vec![word]),
            WordOr::Value(list) => Self(list),
        }
    }
}

fn absent() -> Header {
    Header::Absent
}
