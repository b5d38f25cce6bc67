//! Rebase: an overlay keeps its content when its backing file is exchanged.
//!
//! Copies what differs between the two backing files into the overlay; the header is the caller's
//! to change afterwards.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use qed_core::{
    BackingError, ExtentKind, Extents, Image, ImageError, VirtualDisk, ZeroMode, read_backing,
};
use qed_spec::GuestOffset;
use thiserror::Error;

use crate::jobs;
use crate::progress::Progress;
use crate::zero::is_zero;

/// Bytes of a job, at least one cluster.
const JOB_LEN: u64 = 512 << 10;
/// Most bytes in a buffer; larger clusters are compared and written in parts.
const MAX_JOB_LEN: u64 = 2 << 20;

/// How a rebase runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebaseOptions {
    /// Threads that read, compare and write; each holds two buffers of at most 2 MiB.
    pub threads: NonZeroUsize,
}

impl Default for RebaseOptions {
    /// As many threads as cores.
    fn default() -> Self {
        Self { threads: jobs::default_threads() }
    }
}

/// Why the overlay is not ready for its new backing file. It still reads as before through the old
/// one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RebaseError {
    /// The overlay could not be mapped, written or flushed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The old backing file could not be read.
    #[error("the old backing file")]
    Old(#[source] BackingError),
    /// The new backing file could not be read.
    #[error("the new backing file")]
    New(#[source] BackingError),
    /// The caller asked to stop.
    #[error("the rebase was cancelled")]
    Cancelled,
}

/// Allocates in `image` every cluster that it leaves to its backing file and that `new_backing`
/// would show differently; durable when it returns. Clusters that both backing files show alike
/// stay unallocated.
///
/// Without a new backing file every cluster that does not read as zeros is copied. The caller then
/// writes the new backing file name with [`Image::set_backing`]. Nothing else may write to the
/// image meanwhile. Gives the number of bytes written.
///
/// # Errors
/// Reading, writing or flushing failed, or a cancellation; some clusters are then allocated that
/// need not be, which does no harm.
pub fn rebase(
    image: &Image,
    new_backing: Option<&dyn VirtualDisk>,
    options: &RebaseOptions,
    progress: &dyn Progress,
) -> Result<u64, RebaseError> {
    let cluster = image.geometry().cluster_size_bytes();
    let old = image.backing().map(|backing| &**backing);
    let run = Run {
        image,
        old,
        new: new_backing,
        progress,
        job_len: JOB_LEN.max(cluster),
        size: image.image_size(),
        walk: Mutex::new(Walk {
            at: 0,
            old: old.map(Extents::of),
            new: new_backing.map(Extents::of),
        }),
        written: Mutex::new(0),
    };
    jobs::run(
        options.threads,
        || run.next_job(),
        || [const { Vec::new() }; 2],
        |buffers, job| run.copy_differences(buffers, job),
        || (),
    )?;
    image.flush()?;
    progress.advanced(run.size, run.size);
    Ok(run.written.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Run<'a> {
    image: &'a Image,
    old: Option<&'a dyn VirtualDisk>,
    new: Option<&'a dyn VirtualDisk>,
    progress: &'a dyn Progress,
    job_len: u64,
    size: u64,
    walk: Mutex<Walk<'a>>,
    written: Mutex<u64>,
}

/// Where the planning is, and the walks over the two backing files.
struct Walk<'a> {
    at: u64,
    old: Option<Extents<'a>>,
    new: Option<Extents<'a>>,
}

impl Run<'_> {
    /// The next whole clusters that the image leaves to its backing file and in which either
    /// backing file may have data.
    fn next_job(&self) -> Result<Option<Range<u64>>, RebaseError> {
        let mut walk = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        let Walk { at, old, new } = &mut *walk;
        while *at < self.size {
            if self.progress.is_cancelled() {
                return Err(RebaseError::Cancelled);
            }
            self.progress.advanced(*at, self.size);
            let start = *at;
            let extent = self.image.map(GuestOffset::new(start), self.size - start)?;
            let unallocated = start + extent.len;
            if extent.kind != ExtentKind::Unallocated {
                *at = unallocated;
                continue;
            }
            let old = zeros_until(old, start).map_err(RebaseError::Old)?;
            let new = zeros_until(new, start).map_err(RebaseError::New)?;
            let zeros = old.min(new).min(unallocated);
            let zeros = if zeros == unallocated { zeros } else { zeros - zeros % self.job_len };
            if zeros > start {
                *at = zeros;
                continue;
            }
            *at = (start - start % self.job_len + self.job_len).min(unallocated);
            return Ok(Some(start..*at));
        }
        Ok(None)
    }

    /// Copies the clusters of `job` that differ, part by part: one cluster at a time, or less where
    /// a cluster is larger than a buffer.
    fn copy_differences(
        &self,
        buffers: &mut [Vec<u8>; 2],
        job: Range<u64>,
    ) -> Result<(), RebaseError> {
        let cluster = self.image.geometry().cluster_size_bytes();
        let part_len = cluster.min(MAX_JOB_LEN);
        let mut at = job.start;
        while at < job.end {
            let end = (at + self.job_len.min(MAX_JOB_LEN)).min(job.end);
            let len = usize::try_from(end - at).expect("at most 2 MiB");
            let [old, new] = buffers;
            old.resize(len, 0);
            new.resize(len, 0);
            read_backing(self.old, old, at).map_err(RebaseError::Old)?;
            read_backing(self.new, new, at).map_err(RebaseError::New)?;
            let part_len = usize::try_from(part_len).expect("at most 2 MiB");
            let parts = old.chunks(part_len).zip(new.chunks(part_len));
            for ((old, new), part_at) in parts.zip((at..).step_by(part_len)) {
                if old != new {
                    self.copy(old, GuestOffset::new(part_at))?;
                }
            }
            at = end;
        }
        Ok(())
    }

    fn copy(&self, bytes: &[u8], at: GuestOffset) -> Result<(), RebaseError> {
        let len = bytes.len() as u64;
        let old_len = self.old.map_or(0, VirtualDisk::len);
        // As QEMU does it: zeros that the old backing file has are data, those past its end are not.
        if at.get() >= old_len && is_zero(bytes) {
            // The new backing file may be longer than the old one.
            self.image.write_zeroes(at, len, ZeroMode::Explicit)?;
        } else {
            self.image.write_at(bytes, at)?;
        }
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) += len;
        Ok(())
    }
}

/// The end of the zeros that `backing` has from `at` on, `at` if it has data there.
fn zeros_until(backing: &mut Option<Extents<'_>>, at: u64) -> Result<u64, BackingError> {
    let Some(extents) = backing.as_mut().filter(|backing| at < backing.disk().len()) else {
        return Ok(u64::MAX);
    };
    let extent = extents.at(at)?;
    Ok(if extent.kind.is_stored() { at } else { at.saturating_add(extent.len) })
}
