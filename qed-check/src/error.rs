//! Why a check, a repair or a recovery could not be carried through.
//!
//! What is wrong with an image is not an error but a [`crate::Report`].

use std::io;

use qed_layout::{OverBudget, ReadError};
use qed_spec::{ChooseError, ClusterCount, HeaderError, HostOffset, L1Index, ModeError};
use thiserror::Error;

use crate::report::Report;

/// Why an image could not be checked or repaired.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The header breaks a rule, so that nothing else can be found; unsupported incompatible
    /// features are named here, with number and name.
    #[error("the header cannot be used")]
    Header(#[source] HeaderError),
    /// The copies of the superblock do not say which is current: the image is not written.
    #[error("superblock")]
    Superblock(#[from] ChooseError),
    /// The superblock names a consistency mode that is not known: the image is not written.
    #[error("superblock")]
    Mode(#[from] ModeError),
    /// The length of the image file cannot be told.
    #[error("the length of the image file cannot be told")]
    Len(#[source] io::Error),
    /// Reading a table, the header or a cluster failed.
    #[error("reading {len} bytes at {at} failed")]
    Read {
        /// Where.
        at: HostOffset,
        /// Bytes.
        len: u64,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// Writing a table, the header or a copy failed.
    #[error("writing {len} bytes at {at} failed")]
    Write {
        /// Where.
        at: HostOffset,
        /// Bytes.
        len: u64,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// Changing the length of the image file failed.
    #[error("setting the length of the image file to {len} bytes failed")]
    SetLen {
        /// Bytes.
        len: u64,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// A flush failed; nothing written since the last good one can be relied on.
    #[error("flushing the image file failed")]
    Flush(#[source] io::Error),
    /// The map of clusters in use would cost more memory than the image's tables justify.
    #[error(
        "a map of the {} clusters of the image file needs more than the {limit} bytes of memory its tables justify",
        .clusters.get()
    )]
    MapLimit {
        /// Clusters that the file has.
        clusters: ClusterCount,
        /// Bytes.
        limit: u64,
    },
    /// There are more L2 tables than the caller asked to have read.
    #[error("the image has more than {limit} bytes of L2 tables")]
    TablesLimit {
        /// Bytes.
        limit: u64,
    },
    /// The threads of the check could not be started.
    #[error("the threads of the check cannot be started")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// Mending all duplicates would take more new clusters than the image file has.
    #[error("{needed} clusters would have to be copied, more than the {limit} of the image file")]
    TooManyCopies {
        /// Clusters to copy, at least.
        needed: u64,
        /// Clusters that the file has.
        limit: u64,
    },
    /// Mending would change bytes that are an L2 table by one entry and guest data by another.
    #[error(
        "the cluster at {at} is part of the L2 table that {l1} names and guest data by another \
         entry, and a repair would have to change it: which of the two it is cannot be told"
    )]
    TableOrData {
        /// The cluster.
        at: HostOffset,
        /// The slot that names the table.
        l1: L1Index,
    },
    /// A copy does not fit in what the storage or a 64-bit offset can hold.
    #[error("no space for {clusters} clusters at {at}")]
    NoSpace {
        /// Where they would start.
        at: HostOffset,
        /// Clusters.
        clusters: u64,
    },
}

impl From<ReadError> for CheckError {
    fn from(ReadError { at, len, source }: ReadError) -> Self {
        Self::Read { at, len, source }
    }
}

impl From<OverBudget> for CheckError {
    fn from(over: OverBudget) -> Self {
        Self::MapLimit { clusters: ClusterCount::new(over.clusters), limit: over.budget_bytes }
    }
}

/// Why a dirty image was not recovered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The check or the repair could not be carried through.
    #[error("the image could not be checked")]
    Check(#[source] CheckError),
    /// The image holds what no crash of a single writer leaves behind. It was not changed.
    #[error(
        "the image is corrupt ({} errors){}: a crash alone does not explain this, so it is not recovered",
        .0.corruptions(), first_finding(.0)
    )]
    Corrupt(Box<Report>),
}

fn first_finding(report: &Report) -> String {
    let corruption =
        report.findings.iter().find(|f| f.kind.class() == crate::finding::Class::Corruption);
    corruption.map_or_else(String::new, |finding| format!(", the first being that {finding}"))
}
