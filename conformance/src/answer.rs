//! What an implementation answers about the image of a vector, whichever way it is asked. Owns the
//! seam between what drives an implementation and what judges it.

use std::path::Path;

use thiserror::Error;

use crate::vector::{
    CheckOutcome, Content, ContentBytes, Contents, Expect, Mapping, Places, QemuDiffers,
    StoredFormat, SuperblockCurrent, Vector,
};

/// An implementation that can be asked.
pub trait Implementation: Sync {
    /// What the report calls it.
    fn name(&self) -> &str;

    /// Whether it is QEMU, so that the differences of the vectors are those expected of it.
    fn is_qemu(&self) -> bool;

    /// Whether it can be asked about images on block devices.
    fn has_devices(&self) -> bool {
        false
    }

    /// Asks everything that reads. No file of the image may change by it.
    ///
    /// # Errors
    /// The implementation cannot be asked at all; a bad answer is no error.
    fn read(&self, case: &Case<'_>) -> Result<Answers, DriveError>;

    /// Opens the image for writing and closes it again without a write.
    ///
    /// # Errors
    /// As [`Implementation::read`].
    fn write(&self, case: &Case<'_>) -> Result<Answer<Opened>, DriveError>;
}

/// A vector whose files lie on disk.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The vector.
    pub vector: &'a Vector,
    /// What is expected of this implementation: only that needs to be asked.
    pub expect: &'a Expect,
    /// How that differs from what the specification asks for, if the implementation is QEMU.
    pub qemu: Option<&'a QemuDiffers>,
    /// The image.
    pub image: &'a Path,
    /// A folder for whatever else is needed, empty at first.
    pub scratch: &'a Path,
}

/// What is read where nothing is expected to be readable.
const FIRST_SECTOR: &[Content] = &[Content { at: 0, bytes: ContentBytes::Fail { len: 512 } }];

impl Case<'_> {
    /// The places of the disk that are read: those of which something is expected here, or else
    /// by the specification.
    #[must_use]
    pub fn places(&self) -> &[Content] {
        match (&self.expect.content, &self.vector.expect.content) {
            (Some(Contents::Runs(runs)), _) | (_, Some(Contents::Runs(runs))) => runs,
            (Some(Contents::Fail), _) => FIRST_SECTOR,
            (None, _) => &[],
        }
    }
}

/// An answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// This.
    Said(T),
    /// There is no way to ask it, for this reason.
    Silent(&'static str),
    /// No answer: it died, ran into a limit or talked nonsense.
    Broke(String),
}

/// What became of an attempt to open an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// It is open.
    Accepted,
    /// It is refused.
    Refused {
        /// The clauses that this refusal may be by; none where it cannot be told.
        clauses: Option<&'static [&'static str]>,
        /// The error text.
        said: String,
    },
}

/// The answers about one image.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Opening the image alone for reading.
    pub open: Answer<Opened>,
    /// Bytes of the virtual disk.
    pub size: Answer<u64>,
    /// Bytes.
    pub cluster_size: Answer<u64>,
    /// The backing file name.
    pub backing: Answer<Option<Vec<u8>>>,
    /// The mapping of the image alone.
    pub map: Answer<Mapping>,
    /// The guest bytes of each place that was asked for; none where a read is an error.
    pub content: Answer<Vec<Option<Vec<u8>>>>,
    /// What a check says.
    pub check: Answer<CheckOutcome>,
    /// The numbers of its findings, ascending.
    pub findings: Answer<Vec<u16>>,
    /// What the extension superblock says.
    pub superblock: Answer<SuperblockFound>,
    /// What the anchor says.
    pub anchor: Answer<AnchorFound>,
}

/// What was found in the copies of the extension superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuperblockFound {
    /// Which copy is current.
    pub current: SuperblockCurrent,
    /// Its generation.
    pub generation: Option<u64>,
    /// The types of its sections.
    pub sections: Vec<u32>,
    /// The format of the backing file.
    pub backing_format: StoredFormat,
}

/// What was found in the anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorFound {
    /// Whether there is one that is believed.
    pub valid: bool,
    /// The format of the backing file.
    pub backing_format: StoredFormat,
    /// Where the copies of the superblock are read.
    pub superblocks: Places,
}

/// Why an implementation cannot be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DriveError {
    /// A program does not start.
    #[error("{program} cannot be run: {why}")]
    Start {
        /// The program.
        program: String,
        /// Why, with the Debian package if it is one of ours to name.
        why: String,
    },
    /// A file of the runner's own cannot be made or read.
    #[error("the runner's own files")]
    Io(#[from] std::io::Error),
}

impl Answers {
    /// Nothing was asked.
    #[must_use]
    pub fn none(why: &'static str) -> Self {
        Self {
            open: Answer::Silent(why),
            size: Answer::Silent(why),
            cluster_size: Answer::Silent(why),
            backing: Answer::Silent(why),
            map: Answer::Silent(why),
            content: Answer::Silent(why),
            check: Answer::Silent(why),
            findings: Answer::Silent(why),
            superblock: Answer::Silent(why),
            anchor: Answer::Silent(why),
        }
    }

    /// Whether the image is open, so that there is more to ask.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open == Answer::Said(Opened::Accepted)
    }
}

impl<T> Answer<T> {
    /// The same kind of answer with what was said turned into something else.
    pub fn map<U>(&self, turn: impl FnOnce(&T) -> U) -> Answer<U> {
        match self {
            Self::Said(found) => Answer::Said(turn(found)),
            Self::Silent(why) => Answer::Silent(why),
            Self::Broke(why) => Answer::Broke(why.clone()),
        }
    }
}
