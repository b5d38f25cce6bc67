//! From the errors of the libraries to the clauses that they stand for.

use std::error::Error;
use std::fmt::Write as _;

use qed_core::{CorruptTable, ImageError, OpenError};
use qed_spec::{BackingNameError, ChooseError, HeaderError};

use crate::answer::Opened;

/// A refusal with the clauses that it may be by.
pub(super) fn refused(error: &OpenError) -> Opened {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(said, ": {error}").expect("a string takes all");
        source = error.source();
    }
    Opened::Refused { clauses: Some(clauses(error)), said }
}

fn clauses(error: &OpenError) -> &'static [&'static str] {
    match error {
        OpenError::Header(error) => of_header(error),
        OpenError::BackingName(error) => of_name(error),
        OpenError::NeedsRecovery | OpenError::Recovery(_) | OpenError::StillDirty => {
            &["QED-CONS-01", "QED-DIRTY-08"]
        }
        OpenError::Mode(_) => &["QED-MODE-01"],
        OpenError::Superblock(ChooseError::Version { .. }) => &["QED-SB-04"],
        OpenError::Superblock(ChooseError::Conflict { .. }) => &["QED-SB-10"],
        // One error stands for all that an entry of the L1 table may be.
        OpenError::Image(ImageError::Corrupt(CorruptTable::L1Entry { .. })) => {
            &["QED-TBL-02", "QED-TBL-03", "QED-TBL-07", "QED-TBL-08", "QED-TBL-10", "QED-HDR-08"]
        }
        _ => &[],
    }
}

fn of_header(error: &HeaderError) -> &'static [&'static str] {
    match error {
        HeaderError::Truncated { .. } => &["QED-HDR-01"],
        HeaderError::Magic { .. } => &["QED-HDR-02"],
        HeaderError::UnsupportedFeature { .. } => &["QED-FEAT-01"],
        HeaderError::ClusterSize { .. } => &["QED-HDR-03"],
        HeaderError::TableSize { .. } => &["QED-HDR-04"],
        HeaderError::HeaderSize { .. } => &["QED-HDR-05"],
        HeaderError::L1TableOffset { .. } => &["QED-HDR-06"],
        HeaderError::ImageSizeUnaligned { .. } | HeaderError::ImageSizeTooLarge { .. } => {
            &["QED-HDR-07"]
        }
        HeaderError::BackingName(error) => of_name(error),
        _ => &[],
    }
}

fn of_name(error: &BackingNameError) -> &'static [&'static str] {
    match error {
        BackingNameError::Empty
        | BackingNameError::TooLong { .. }
        | BackingNameError::Nul { .. } => &["QED-BACK-03"],
        BackingNameError::OutsideHeaderArea { .. } => &["QED-BACK-01"],
        _ => &[],
    }
}
