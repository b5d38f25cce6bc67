//! Comparing two virtual disks: the lowest sector that differs, on several threads, data only.
//!
//! Knows disks through [`VirtualDisk`] and no format.

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use qed_core::{BackingError, Extents, GuestExtentKind, VirtualDisk};
use thiserror::Error;

use crate::jobs;
use crate::progress::Progress;
use crate::zero::is_zero;

/// Most bytes that one job reads from each side.
const JOB_LEN: u64 = 256 << 10;
const SECTOR: usize = 512;

/// How two disks are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompareOptions {
    /// Threads that read; each holds two buffers of 256 KiB.
    pub threads: NonZeroUsize,
    /// Sizes, and what is data, compressed, zero or unallocated, have to be equal too. Otherwise
    /// the longer disk may only have zeros past the end of the shorter one.
    ///
    /// QEMU's strict mode also counts where a driver happens to cut its runs, so that
    /// files of different formats or layout differ with the same allocation; this does not.
    pub strict: bool,
}

impl Default for CompareOptions {
    /// As many threads as cores, not strict.
    fn default() -> Self {
        Self { threads: jobs::default_threads(), strict: false }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Nothing that counts differs.
    Identical,
    /// The sizes differ; strict only, nothing was read.
    SizesDiffer,
    /// The bytes differ.
    ContentDiffers {
        /// First byte of the lowest sector of 512 bytes that differs.
        offset: u64,
    },
    /// The mapping differs; strict only.
    MappingDiffers {
        /// Lowest byte whose mapping differs.
        offset: u64,
    },
}

/// One of the two disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first argument.
    First,
    /// The second argument.
    Second,
}

/// Why a comparison did not complete.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A disk could not be read.
    #[error("reading the {side} image at guest offset {offset:#x}")]
    Read {
        /// Which one.
        side: Side,
        /// Byte of its virtual disk.
        offset: u64,
        /// The error of its storage or format.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The caller asked to stop.
    #[error("the comparison was cancelled")]
    Cancelled,
}

/// Compares two virtual disks; reads only where at least one of them has data.
///
/// ```
/// use std::sync::Arc;
/// use qed_convert::NoProgress;
/// use qed_convert::compare::{CompareOptions, Comparison, compare};
/// use qed_core::RawFile;
/// use qed_io::MemoryStorage;
///
/// let disk = |bytes| RawFile::open(Arc::new(MemoryStorage::new(bytes)));
/// let (zeros, mut other) = (vec![0; 4096], vec![0; 4096]);
/// other[1500] = 1;
/// let found = compare(&disk(zeros)?, &disk(other)?, &CompareOptions::default(), &NoProgress)?;
/// assert_eq!(found, Comparison::ContentDiffers { offset: 1024 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A disk that cannot be read, whether or not a lower sector differs, or a cancellation.
pub fn compare(
    first: &dyn VirtualDisk,
    second: &dyn VirtualDisk,
    options: &CompareOptions,
    progress: &dyn Progress,
) -> Result<Comparison, CompareError> {
    if options.strict && first.len() != second.len() {
        return Ok(Comparison::SizesDiffer);
    }
    let run = Run {
        disks: [first, second],
        strict: options.strict,
        progress,
        walk: Mutex::new(Walk { at: 0, extents: [Extents::of(first), Extents::of(second)] }),
        lowest: Mutex::new(Comparison::Identical),
    };
    jobs::run(
        options.threads,
        || run.next_job(),
        || [const { Vec::new() }; 2],
        |buffers, job| run.compare_job(buffers, &job),
        || (),
    )?;
    progress.advanced(run.len(), run.len());
    Ok(run.lowest.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What the threads of one comparison share.
struct Run<'a> {
    disks: [&'a dyn VirtualDisk; 2],
    strict: bool,
    progress: &'a dyn Progress,
    walk: Mutex<Walk<'a>>,
    lowest: Mutex<Comparison>,
}

struct Walk<'a> {
    at: u64,
    extents: [Extents<'a>; 2],
}

/// A range in which each side is either all data or all zeros.
struct Job {
    range: Range<u64>,
    has_data: [bool; 2],
}

impl Comparison {
    /// Where it is decided; nothing for what is not at one place.
    fn offset(self) -> Option<u64> {
        match self {
            Self::ContentDiffers { offset } | Self::MappingDiffers { offset } => Some(offset),
            Self::Identical | Self::SizesDiffer => None,
        }
    }
}

impl Run<'_> {
    fn len(&self) -> u64 {
        self.disks[0].len().max(self.disks[1].len())
    }

    /// The next range with data on either side; none at the end or past a known difference.
    fn next_job(&self) -> Result<Option<Job>, CompareError> {
        let mut walk = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        while walk.at < self.len() {
            if self.lowest().offset().is_some() {
                // All jobs below it have been given out.
                return Ok(None);
            }
            if self.progress.is_cancelled() {
                return Err(CompareError::Cancelled);
            }
            let job = self.plan(&mut walk)?;
            self.progress.advanced(walk.at, self.len());
            if job.has_data != [false, false] {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// The longest range from where the walk is with one kind of mapping on each side.
    fn plan(&self, walk: &mut Walk<'_>) -> Result<Job, CompareError> {
        let at = walk.at;
        let mut end = self.len();
        let mut kinds = [None; 2];
        for (i, disk) in self.disks.into_iter().enumerate() {
            if at < disk.len() {
                let extent = walk.extents[i].at(at).map_err(|error| failed(i, error))?;
                end = end.min(at + extent.len);
                kinds[i] = Some(extent.kind);
            }
        }
        if self.strict && kinds[0].map(class) != kinds[1].map(class) {
            self.found(Comparison::MappingDiffers { offset: at });
        }
        let has_data = kinds.map(|kind| kind.is_some_and(GuestExtentKind::is_stored));
        if has_data != [false, false] {
            // Jobs end at multiples of their length, so that reads are aligned.
            end = end.min((at - at % JOB_LEN).saturating_add(JOB_LEN));
        }
        walk.at = end;
        Ok(Job { range: at..end, has_data })
    }

    fn compare_job(&self, buffers: &mut [Vec<u8>; 2], job: &Job) -> Result<(), CompareError> {
        let len = usize::try_from(job.range.end - job.range.start).expect("at most 256 KiB");
        for (i, disk) in self.disks.into_iter().enumerate() {
            buffers[i].resize(len, 0);
            if job.has_data[i] {
                disk.read_at(&mut buffers[i], job.range.start).map_err(|error| failed(i, error))?;
            }
        }
        let difference = match (&job.has_data, &*buffers) {
            ([true, true], [first, second]) => first_difference(first, second),
            ([true, false], [data, _]) | ([false, true], [_, data]) => first_data(data),
            _ => None,
        };
        if let Some(at) = difference {
            self.found(Comparison::ContentDiffers { offset: job.range.start + at as u64 });
        }
        Ok(())
    }

    fn lowest(&self) -> Comparison {
        *self.lowest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the lowest difference; a mapping goes before the bytes it maps.
    fn found(&self, found: Comparison) {
        let mut lowest = self.lowest.lock().unwrap_or_else(PoisonError::into_inner);
        let rank = |found: Comparison| {
            let is_content = matches!(found, Comparison::ContentDiffers { .. });
            found.offset().map_or((u64::MAX, true), |offset| (offset, is_content))
        };
        if rank(found) < rank(*lowest) {
            *lowest = found;
        }
    }
}

/// What strict comparison tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Unallocated,
    Zero,
    Data,
    Compressed,
}

fn class(kind: GuestExtentKind) -> Class {
    match kind {
        GuestExtentKind::Unallocated => Class::Unallocated,
        GuestExtentKind::Zero => Class::Zero,
        // Where a file has holes is its file system's business.
        GuestExtentKind::Data { .. } | GuestExtentKind::Hole { .. } => Class::Data,
        GuestExtentKind::Compressed => Class::Compressed,
    }
}

/// First byte of the first sector that differs.
fn first_difference(first: &[u8], second: &[u8]) -> Option<usize> {
    if first == second {
        return None;
    }
    let mut sectors = first.chunks(SECTOR).zip(second.chunks(SECTOR));
    sectors.position(|(first, second)| first != second).map(|sector| sector * SECTOR)
}

/// First byte of the first sector that is not all zero.
fn first_data(bytes: &[u8]) -> Option<usize> {
    if is_zero(bytes) {
        return None;
    }
    bytes.chunks(SECTOR).position(|sector| !is_zero(sector)).map(|sector| sector * SECTOR)
}

fn failed(i: usize, error: BackingError) -> CompareError {
    let side = if i == 0 { Side::First } else { Side::Second };
    CompareError::Read { side, offset: error.offset, source: error.source }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Second => "second",
        })
    }
}
