//! From the errors of the libraries to the clauses that they stand for.

use std::error::Error;
use std::fmt::Write as _;

use qed_core::{CorruptTable, ImageError, OpenError};
use qed_journal::{JournalError, JournalFault, RecoveryError};
use qed_spec::{BackingNameError, ChooseError, HeaderError, JournalRecordError, JournalRingError};

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
        // With JOURNAL_ACTIVE a bit is not known besides.
        OpenError::Mode(_) => &["QED-MODE-01", "QED-FEAT-01"],
        OpenError::Superblock(ChooseError::Version { .. }) => &["QED-SB-04", "QED-FEAT-01"],
        OpenError::Superblock(ChooseError::Conflict { .. }) => &["QED-SB-10", "QED-FEAT-01"],
        OpenError::NoJournal => &["QED-JRN-31"],
        OpenError::JournalRing(error) => of_ring(error),
        OpenError::Journal(JournalError::NotEmpty { .. }) => &["QED-JRN-16"],
        OpenError::JournalRecovery(RecoveryError::Corrupt { fault, .. }) => of_log(fault),
        OpenError::JournalCutsTables => &["QED-JRN-14"],
        OpenError::Image(ImageError::Corrupt(CorruptTable::L1Overlap { .. })) => &["QED-TBL-11"],
        // One error stands for all that an entry of the L1 table may be.
        OpenError::Image(ImageError::Corrupt(CorruptTable::L1Entry { .. })) => {
            &["QED-TBL-02", "QED-TBL-03", "QED-TBL-07", "QED-TBL-08", "QED-TBL-10", "QED-HDR-08"]
        }
        _ => &[],
    }
}

fn of_ring(error: &JournalRingError) -> &'static [&'static str] {
    match error {
        JournalRingError::Length { .. } => &["QED-JRN-01"],
        JournalRingError::Place { .. } => &["QED-JRN-02"],
        JournalRingError::Sequence { .. } => &["QED-JRN-03"],
        _ => &[],
    }
}

fn of_log(fault: &JournalFault) -> &'static [&'static str] {
    match fault {
        JournalFault::Lost { .. } => &["QED-JRN-12"],
        JournalFault::Block(_) => &["QED-JRN-06"],
        JournalFault::Record(error) => of_record(error),
        JournalFault::Misplaced { .. } | JournalFault::Newer { .. } => &["QED-JRN-13"],
        // One error stands for a block that is not the next one of its commit or of the log.
        JournalFault::Chain => &["QED-JRN-09", "QED-JRN-10"],
        JournalFault::CommitTooLong { .. } => &["QED-JRN-09"],
        JournalFault::PhysicalSize { .. } => &["QED-JRN-14"],
        JournalFault::Refused { .. } => &["QED-JRN-08", "QED-TBL-08"],
        _ => &[],
    }
}

fn of_record(error: &JournalRecordError) -> &'static [&'static str] {
    match error {
        JournalRecordError::Kind { .. }
        | JournalRecordError::Count { .. }
        | JournalRecordError::Unused => &["QED-JRN-07"],
        JournalRecordError::Place { .. } | JournalRecordError::Value { .. } => &["QED-JRN-08"],
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
