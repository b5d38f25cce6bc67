//! What a vector expects, and how QEMU differs from it.

use serde::Deserialize;

use super::run::{Bytes, BytesText, FillText, Run, from_hex};
use super::word_or::WordOr;

/// What is expected of an implementation; what is not given is not asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Opening for reading.
    pub open: Opening,
    /// Opening for writing, without a repair.
    pub write: Option<Opening>,
    /// Bytes of the virtual disk.
    pub size: Option<u64>,
    /// Bytes.
    pub cluster_size: Option<u64>,
    /// The backing file name.
    pub backing: Option<BackingName>,
    /// The whole disk.
    pub map: Option<Mapping>,
    /// Bytes that the guest reads.
    pub content: Option<Contents>,
    /// What a check says.
    pub check: Option<CheckOutcome>,
    /// The numbers of the findings of qed-check, ascending, each as often as it is found.
    pub findings: Option<Vec<u16>>,
    /// What the file holds after an open for writing that was closed without a write.
    pub after_write: Option<Vec<Run>>,
    /// What the extension superblock says, whatever the features.
    pub superblock: Option<SuperblockExpect>,
    /// What the anchor says, whatever the features.
    pub anchor: Option<AnchorExpect>,
}

/// How QEMU differs: the fields that it answers otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuDiffers {
    /// The version in which this was seen.
    pub version: String,
    /// The difference in one line, with the clause QED-QEMU-NN where there is one.
    pub why: String,
    /// Opening for reading.
    pub open: Option<Opening>,
    /// Opening for writing.
    pub write: Option<Opening>,
    /// Bytes of the virtual disk.
    pub size: Option<u64>,
    /// The backing file name.
    pub backing: Option<BackingName>,
    /// The whole disk.
    pub map: Option<Mapping>,
    /// Bytes that the guest reads.
    pub content: Option<Contents>,
    /// What a check says.
    pub check: Option<CheckOutcome>,
}

/// What becomes of an attempt to open an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WordOr<Rejected>")]
pub enum Opening {
    /// It opens.
    Accept,
    /// It does not, by this clause where one is given.
    Reject(Option<String>),
}

/// A refusal, as `{ reject = "QED-HDR-03" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// The clause by which it is refused.
    pub reject: String,
}

/// The bytes of a backing file name: text, or `{ hex = ".." }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WordOr<HexName>")]
pub struct BackingName(pub Vec<u8>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HexName {
    hex: String,
}

/// The mapping of the whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WordOr<Vec<MapRun>>")]
pub enum Mapping {
    /// These runs, in order; those that continue each other are one.
    Runs(Vec<MapRun>),
    /// It cannot be told: a table is illegal.
    Fails,
}

/// A run of guest bytes with one mapping.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "MapRunText")]
pub struct MapRun {
    /// First byte.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// Where they come from.
    pub kind: MapKind,
}

/// Where guest bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// From this offset of the image file on.
    Data {
        /// Offset of the first byte.
        host: u64,
    },
    /// Zeros, by an entry that says so.
    Zero,
    /// Not from this image.
    Unallocated,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapRunText {
    at: u64,
    len: u64,
    kind: KindText,
    host: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindText {
    Data,
    Zero,
    Unallocated,
}

/// What a guest reads.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WordOr<Vec<Content>>")]
pub enum Contents {
    /// These bytes.
    Runs(Vec<Content>),
    /// It cannot be read, wherever a vector asks.
    Fail,
}

/// What a guest reads at one place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ContentText")]
pub struct Content {
    /// Guest offset.
    pub at: u64,
    /// What stands there.
    pub bytes: ContentBytes,
}

/// What stands at a guest offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentBytes {
    /// These bytes.
    Read(Bytes),
    /// So many that cannot be read: an entry is illegal.
    Fail {
        /// Bytes.
        len: u64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentText {
    at: u64,
    u64: Option<Vec<u64>>,
    u32: Option<Vec<u32>>,
    hex: Option<String>,
    text: Option<String>,
    fill: Option<FillText>,
    /// Bytes that cannot be read.
    fails: Option<u64>,
}

/// Why QEMU differs where a check finds free space; no vector has to say so.
pub(crate) const FREE_IS_LEAKED: &str = "QED-QEMU-28: free space counts as leaks";

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// Neither a corruption nor a leak, and nothing that is free.
    Clean,
    /// As clean, with free space that the next writer uses.
    Free,
    /// Leaks, and no corruption.
    Leaks,
    /// Corruptions.
    Corrupt,
    /// The image cannot be checked.
    Refused,
}

/// What the extension superblock says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuperblockExpect {
    /// Which copy is current.
    pub current: SuperblockCurrent,
    /// Its generation.
    pub generation: Option<u64>,
    /// The types of its sections, in order.
    pub sections: Option<Vec<u32>>,
    /// The format that it has stored for the backing file.
    pub backing_format: Option<StoredFormat>,
}

/// What the anchor says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorExpect {
    /// Whether there is one that is believed.
    pub valid: bool,
    /// The format that it has stored for the backing file.
    pub backing_format: Option<StoredFormat>,
    /// Where the copies of the superblock are read.
    pub superblocks: Option<Places>,
}

/// The format that is stored for the present backing file name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "WordOr<Rejected>")]
pub enum StoredFormat {
    /// None, or one that is stored for another name.
    None,
    /// This one.
    Is(String),
    /// One that breaks this clause.
    Reject(String),
}

/// Where the copies of the superblock are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Places {
    /// At these offsets, A first; nowhere if there are none.
    At(Vec<u64>),
    /// Nowhere, because the offsets break a clause.
    Reject(Rejected),
}

/// Which copy of the superblock is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuperblockCurrent {
    /// Copy A.
    A,
    /// Copy B.
    B,
    /// Neither, and that is no error.
    None,
    /// It is an error to choose: the image is not written and neither is believed.
    Refused,
}

impl Expect {
    /// What is expected of QEMU: its differences in place of what is expected of anybody. Free space, it
    /// takes for leaks, QED-QEMU-28.
    #[must_use]
    pub fn of_qemu(&self, qemu: Option<&QemuDiffers>) -> Self {
        let mut expect = self.clone();
        if expect.check == Some(CheckOutcome::Free) {
            expect.check = Some(CheckOutcome::Leaks);
        }
        let Some(qemu) = qemu else { return expect };
        let QemuDiffers { version: _, why: _, open, write, size, backing, map, content, check } =
            qemu.clone();
        expect.open = open.unwrap_or(expect.open);
        expect.write = write.or(expect.write);
        expect.size = size.or(expect.size);
        expect.backing = backing.or(expect.backing);
        expect.map = map.or(expect.map);
        expect.content = content.or(expect.content);
        expect.check = check.or(expect.check);
        expect
    }

    /// What is expected of an open for writing: as of one for reading where nothing else is said,
    /// but nothing of a corrupt image, where no clause says whether the open or a request fails.
    #[must_use]
    pub fn to_write(&self) -> Option<&Opening> {
        let corrupt = self.check == Some(CheckOutcome::Corrupt);
        self.write.as_ref().or((!corrupt).then_some(&self.open))
    }
}

impl MapRun {
    /// Adds a run to those before it; one that continues the last makes it longer.
    pub(crate) fn append(runs: &mut Vec<Self>, run: Self) {
        match runs.last_mut() {
            Some(last) if last.continues_in(&run) => last.len += run.len,
            _ => runs.push(run),
        }
    }

    /// Whether `next` is the rest of this run.
    pub(crate) fn continues_in(&self, next: &Self) -> bool {
        self.at.checked_add(self.len) == Some(next.at)
            && match (self.kind, next.kind) {
                (MapKind::Data { host }, MapKind::Data { host: next }) => {
                    host.checked_add(self.len) == Some(next)
                }
                (kind, next) => kind == next,
            }
    }
}

impl ContentBytes {
    /// How many they are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Read(bytes) => bytes.len(),
            Self::Fail { len } => *len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl TryFrom<WordOr<Rejected>> for Opening {
    type Error = String;

    fn try_from(value: WordOr<Rejected>) -> Result<Self, String> {
        match value {
            WordOr::Value(Rejected { reject }) => Ok(Self::Reject(Some(reject))),
            WordOr::Word(word) if word == "accept" => Ok(Self::Accept),
            WordOr::Word(word) if word == "reject" => Ok(Self::Reject(None)),
            WordOr::Word(word) => {
                Err(format!("an image is to \"accept\" or {{ reject = .. }}, not \"{word}\""))
            }
        }
    }
}

impl From<WordOr<Rejected>> for StoredFormat {
    fn from(value: WordOr<Rejected>) -> Self {
        match value {
            WordOr::Value(Rejected { reject }) => Self::Reject(reject),
            WordOr::Word(word) if word.is_empty() => Self::None,
            WordOr::Word(word) => Self::Is(word),
        }
    }
}

impl TryFrom<WordOr<HexName>> for BackingName {
    type Error = String;

    fn try_from(value: WordOr<HexName>) -> Result<Self, String> {
        match value {
            WordOr::Word(text) => Ok(Self(text.into_bytes())),
            WordOr::Value(HexName { hex }) => from_hex(&hex).map(Self),
        }
    }
}

impl TryFrom<WordOr<Vec<MapRun>>> for Mapping {
    type Error = String;

    fn try_from(value: WordOr<Vec<MapRun>>) -> Result<Self, String> {
        Ok(match runs_or_fails(value)? {
            Some(runs) => Self::Runs(runs),
            None => Self::Fails,
        })
    }
}

impl TryFrom<WordOr<Vec<Content>>> for Contents {
    type Error = String;

    fn try_from(value: WordOr<Vec<Content>>) -> Result<Self, String> {
        Ok(match runs_or_fails(value)? {
            Some(runs) => Self::Runs(runs),
            None => Self::Fail,
        })
    }
}

impl TryFrom<MapRunText> for MapRun {
    type Error = &'static str;

    fn try_from(MapRunText { at, len, kind, host }: MapRunText) -> Result<Self, &'static str> {
        let kind = match (kind, host) {
            (KindText::Data, Some(host)) => MapKind::Data { host },
            (KindText::Zero, None) => MapKind::Zero,
            (KindText::Unallocated, None) => MapKind::Unallocated,
            _ => return Err("data has a host offset, and nothing else has"),
        };
        Ok(Self { at, len, kind })
    }
}

impl TryFrom<ContentText> for Content {
    type Error = String;

    fn try_from(content: ContentText) -> Result<Self, String> {
        let ContentText { at, u64, u32, hex, text, fill, fails } = content;
        let bytes = BytesText { u64, u32, hex, text, fill };
        let bytes = match fails {
            None => ContentBytes::Read(bytes.bytes()?),
            Some(len) if len > 0 && bytes.is_absent() => ContentBytes::Fail { len },
            Some(_) => return Err("fails = LEN stands alone, for 1 byte or more".to_owned()),
        };
        Ok(Self { at, bytes })
    }
}

fn runs_or_fails<T>(value: WordOr<Vec<T>>) -> Result<Option<Vec<T>>, String> {
    match value {
        WordOr::Value(runs) => Ok(Some(runs)),
        WordOr::Word(word) if word == "fails" => Ok(None),
        WordOr::Word(word) => Err(format!("a list of runs or \"fails\", not \"{word}\"")),
    }
}
