//! How the tables of an image survive a crash, as its superblock says it.

use qed_io::Storage;
use qed_spec::{ConsistencyMode, Features, Header, HeaderError, SectionType};

use crate::durability::log::FoundJournal;
use crate::error::OpenError;
use crate::head::compat::Compat;
use crate::head::sector::{HeaderSector, SUPPORTED};
use crate::head::superblock::SuperblockBytes;
use crate::image::read_only::storage_len;

/// The consistency mode of an image and what belongs to it.
#[derive(Debug)]
pub(crate) enum Mode {
    /// The header says it all.
    Classic,
    /// Tables are written in place; a dirty bitmap says which a crash left in doubt.
    Compat(Compat),
    /// Changes of tables go to the journal first.
    Journal(FoundJournal),
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
    if is_active(sector.header()) {
        Mode::read(storage, sector.header(), file_len)?;
    }
    Ok(*sector.header())
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
    if is_active(&header) && Mode::read(storage, &header, file_len).is_err() {
        supported.remove(Features::JOURNAL_ACTIVE);
    }
    Ok((header, header.features().difference(supported)))
}

/// Whether the journal of an image holds commits that are not in the tables.
pub(crate) fn is_active(header: &Header) -> bool {
    header.features().contains(Features::JOURNAL_ACTIVE)
}

impl Mode {
    /// Reads the superblock of an image, if it has one.
    ///
    /// # Errors
    /// A superblock that forbids writing: a mode or a version that is not known, copies between
    /// which there is no choice, sections that break a rule.
    // spec: QED-MODE-01, QED-FEAT-08
    pub(crate) fn read(
        storage: &dyn Storage,
        header: &Header,
        file_len: u64,
    ) -> Result<Self, OpenError> {
        let mode = Self::of_superblock(storage, header, file_len);
        // spec: QED-JRN-31
        if is_active(header)
            && matches!(mode, Ok(Self::Classic | Self::Compat(_)) | Err(OpenError::NoJournal))
        {
            let (bit, name) = header
                .features()
                .first_unsupported(Features::CLASSIC)
                .expect("JOURNAL_ACTIVE is set and no bit of a classic image");
            return Err(HeaderError::UnsupportedFeature { bit, name }.into());
        }
        mode
    }

    fn of_superblock(
        storage: &dyn Storage,
        header: &Header,
        file_len: u64,
    ) -> Result<Self, OpenError> {
        let Some(bytes) = SuperblockBytes::read(storage, header, file_len)? else {
            return Ok(Self::Classic);
        };
        let choice = bytes.choose()?;
        let Some((_, current)) = choice.current() else {
            return Ok(Self::Classic);
        };
        let Some(mode) = current.section(SectionType::MODE) else {
            return Ok(Self::Classic);
        };
        Ok(match ConsistencyMode::parse(mode.payload())? {
            ConsistencyMode::Compat => Self::Compat(Compat::parse(&choice, &current, header)?),
            ConsistencyMode::Journal => {
                Self::Journal(FoundJournal::parse(&choice, &current, header)?)
            }
        })
    }
}
