//! How the tables of an image survive a crash, as its superblock says it.

use std::sync::Arc;

use qed_io::Storage;
use qed_layout::{SUPPORTED, stored_owner, stored_physical_size};
use qed_spec::{
    AutoclearFeatures, ConsistencyMode, Features, Header, HeaderError, ImageOwner, PhysicalSize,
    SectionType,
};

use crate::error::OpenError;
use crate::head::sections::{FoundBitmap, FoundJournal};
use crate::head::sector::{HeaderSector, storage_len};
use crate::head::superblock::{OpenSuperblock, read_copies};
use crate::head::{Head, identity};

/// The consistency mode of an image and what belongs to it.
#[derive(Debug)]
pub(crate) enum Mode {
    /// The header says it all.
    Classic,
    /// Tables are written in place; a dirty bitmap says which a crash left in doubt.
    Compat(FoundBitmap),
    /// Changes of tables go to the journal first.
    Journal(FoundJournal),
}

/// What an image says of itself, before any table is read.
#[derive(Debug)]
pub(crate) struct FoundHead {
    pub(crate) sector: HeaderSector,
    pub(crate) mode: Mode,
    /// Where the mode is not classic.
    superblock: Option<OpenSuperblock>,
    /// Where the superblock of an image whose mode is not classic says that it ends on a block device.
    pub(crate) physical_size: Option<PhysicalSize>,
    /// Who such a superblock says has the image.
    pub(crate) owner: Option<ImageOwner>,
}

/// Reads and checks the header of the image in `storage`, and, if it says that a journal holds
/// commits, that the superblock names one.
///
/// # Errors
/// The rule that the header breaks, or what keeps the journal from being found.
// spec: QED-HDR-01, QED-JRN-31
pub fn read_header(storage: &dyn Storage) -> Result<Header, OpenError> {
    let file_len = storage_len(storage)?;
    let sector = HeaderSector::read(storage, file_len)?;
    let header = *sector.header();
    if is_active(&header) {
        FoundHead::of(storage, sector)?;
    }
    Ok(header)
}

/// Reads and checks a header that may need what is not supported, to be shown and nothing else, and
/// the features that are not.
///
/// # Errors
/// Another rule that the header breaks.
pub fn describe_header(storage: &dyn Storage) -> Result<(Header, Features), OpenError> {
    let file_len = storage_len(storage)?;
    let header = HeaderSector::describe(storage, file_len)?;
    let mut supported = SUPPORTED;
    if is_active(&header) && find_mode(storage, &header).is_err() {
        supported.remove(Features::JOURNAL_ACTIVE);
    }
    Ok((header, header.features().difference(supported)))
}

/// Reads who the image in `storage` says has it open for writing, or had it when its host died; none
/// where nobody says so, as in a classic image.
///
/// # Errors
/// As [`crate::Consistency::read`].
// spec: QED-HAND-02, QED-HAND-07
pub fn read_owner(storage: &dyn Storage) -> Result<Option<ImageOwner>, OpenError> {
    let owner = FoundHead::read(storage)?.owner;
    Ok(owner.filter(|owner| owner.token().is_some()))
}

/// Whether the journal of an image holds commits that are not in the tables.
pub(crate) fn is_active(header: &Header) -> bool {
    header.features().contains(Features::JOURNAL_ACTIVE)
}

impl FoundHead {
    /// Reads sector 0 and the superblock of an image, if it has one.
    ///
    /// # Errors
    /// A superblock that forbids writing: a mode or a version that is not known, copies between
    /// which there is no choice, sections that break a rule.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Self, OpenError> {
        let file_len = storage_len(storage)?;
        Self::of(storage, HeaderSector::read(storage, file_len)?)
    }

    fn of(storage: &dyn Storage, sector: HeaderSector) -> Result<Self, OpenError> {
        let found = find_mode(storage, sector.header())?;
        Ok(Self {
            sector,
            mode: found.mode,
            superblock: found.superblock,
            physical_size: found.physical_size,
            owner: found.owner,
        })
    }

    pub(crate) fn header(&self) -> &Header {
        self.sector.header()
    }

    /// Whether the last writer said that it owns the image, and no other program wrote it since.
    pub(crate) fn is_owned(&self) -> bool {
        self.header().fields().autoclear_features.contains(AutoclearFeatures::OWNED)
    }

    /// UUID and generation of the current superblock; zeros where there is none that is kept up.
    pub(crate) fn identity(&self) -> ([u8; 16], u64) {
        identity(self.superblock.as_ref())
    }

    /// The head of a writable image, and its mode.
    pub(crate) fn into_head(
        self,
        storage: Arc<dyn Storage>,
        backing_name: Option<Vec<u8>>,
    ) -> (Head, Mode) {
        (Head::new(storage, self.sector, self.superblock, backing_name), self.mode)
    }
}

impl Mode {
    /// The autoclear bits of what the last writer kept up.
    pub(crate) fn kept_bits(&self) -> AutoclearFeatures {
        match self {
            Self::Classic => AutoclearFeatures::empty(),
            Self::Compat(found) => found.kept_bits(),
            Self::Journal(found) => found.kept_bits(),
        }
    }

    /// Whether another program may have written tables since the bitmap was last kept up.
    pub(crate) fn wants_full_check(&self) -> bool {
        matches!(self, Self::Compat(found) if !found.is_kept)
    }
}

/// What the superblock of an image says, where it has one.
struct Found {
    mode: Mode,
    superblock: Option<OpenSuperblock>,
    physical_size: Option<PhysicalSize>,
    owner: Option<ImageOwner>,
}

impl Found {
    /// Of an image whose header says it all.
    const CLASSIC: Self =
        Self { mode: Mode::Classic, superblock: None, physical_size: None, owner: None };
}

// spec: QED-MODE-01, QED-FEAT-08
fn find_mode(storage: &dyn Storage, header: &Header) -> Result<Found, OpenError> {
    let found = mode_of_superblock(storage, header);
    // spec: QED-JRN-31
    let has_no_journal = match &found {
        Ok(found) => !matches!(found.mode, Mode::Journal(_)),
        Err(error) => matches!(error, OpenError::NoJournal),
    };
    if is_active(header) && has_no_journal {
        let (bit, name) = header
            .features()
            .first_unsupported(Features::CLASSIC)
            .expect("JOURNAL_ACTIVE is set and no bit of a classic image");
        return Err(HeaderError::UnsupportedFeature { bit, name }.into());
    }
    found
}

fn mode_of_superblock(storage: &dyn Storage, header: &Header) -> Result<Found, OpenError> {
    let Some(bytes) = read_copies(storage, header)? else {
        return Ok(Found::CLASSIC);
    };
    let choice = bytes.choose()?;
    let Some((_, current)) = choice.current() else {
        return Ok(Found::CLASSIC);
    };
    let Some(mode) = current.section(SectionType::MODE) else {
        return Ok(Found::CLASSIC);
    };
    let mode = match ConsistencyMode::parse(mode.payload())? {
        ConsistencyMode::Compat => Mode::Compat(FoundBitmap::parse(&current, header)?),
        ConsistencyMode::Journal => Mode::Journal(FoundJournal::parse(&current, header)?),
    };
    let superblock = Some(OpenSuperblock::after(&choice, &current));
    let physical_size = stored_physical_size(&current, header);
    Ok(Found { mode, superblock, physical_size, owner: stored_owner(&current, header) })
}
