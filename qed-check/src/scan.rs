//! The fast pass over all L2 tables, in parallel: claims clusters, counts, and notices whether any
//! entry is out of order, without saying which.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use qed_spec::{L1Index, TableEntry};
use rayon::prelude::*;

use crate::cluster_set::ClusterSet;
use crate::error::CheckError;
use crate::metadata::Metadata;
use crate::tables::{Piece, PieceBuffer, Tables};

/// Pieces that are handed to the threads at once.
const BATCH_PIECES: usize = 4096;
/// Threads at least, so that a disk always has several reads to work on.
const MIN_THREADS: usize = 8;

/// What was counted in a run of pieces in guest order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    /// Whether no entry breaks a rule.
    pub(crate) sound: bool,
    pub(crate) allocated: u64,
    pub(crate) fragmented: u64,
    pub(crate) zero: u64,
    /// The first and last cluster offset, each with its table, to see whether runs continue.
    first: Option<(L1Index, u64)>,
    last: Option<(L1Index, u64)>,
}

impl Summary {
    const EMPTY: Self =
        Self { sound: true, allocated: 0, fragmented: 0, zero: 0, first: None, last: None };

    /// The sum of two runs of pieces that follow each other.
    fn then(self, next: Self, cluster_size: u64) -> Self {
        let broken = match (self.last, next.first) {
            (Some((l1, last)), Some((next_l1, first))) => {
                l1 == next_l1 && last.wrapping_add(cluster_size) != first
            }
            _ => false,
        };
        Self {
            sound: self.sound && next.sound,
            allocated: self.allocated + next.allocated,
            fragmented: self.fragmented + next.fragmented + u64::from(broken),
            zero: self.zero + next.zero,
            first: self.first.or(next.first),
            last: next.last.or(self.last),
        }
    }
}

/// Claims in `used` what the L2 tables name.
pub(crate) fn run(
    tables: &Tables<'_>,
    metadata: &Metadata,
    used: &ClusterSet,
    threads: Option<NonZeroUsize>,
) -> Result<Summary, CheckError> {
    let mut workers = Workers { tables, used, pool: None, threads, buffers: Vec::new() };
    let mut total = Summary::EMPTY;
    let cluster_size = tables.layout.cluster_size();
    let mut batch = Vec::new();
    metadata.for_each_table(tables, |l1, start| {
        for piece in tables.l2_pieces(l1, start) {
            batch.push(piece?);
            if batch.len() == BATCH_PIECES {
                total = total.then(workers.scan(&batch)?, cluster_size);
                batch.clear();
            }
        }
        Ok(())
    })?;
    Ok(total.then(workers.scan(&batch)?, cluster_size))
}

/// The threads, started with the first batch that is worth them.
struct Workers<'a> {
    tables: &'a Tables<'a>,
    used: &'a ClusterSet,
    pool: Option<rayon::ThreadPool>,
    threads: Option<NonZeroUsize>,
    /// One for each thread, so that the memory stays where it is.
    buffers: Vec<Mutex<PieceBuffer>>,
}

impl Workers<'_> {
    fn scan(&mut self, batch: &[Piece]) -> Result<Summary, CheckError> {
        let threads = self.threads.map_or_else(default_threads, NonZeroUsize::get);
        if batch.len() <= 1 || threads == 1 {
            return self.scan_here(batch);
        }
        if self.pool.is_none() {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
            self.pool = Some(builder.build().map_err(CheckError::Threads)?);
            self.buffers = (0..threads).map(|_| Mutex::default()).collect();
        }
        match &self.pool {
            Some(pool) => pool.install(|| self.scan_parallel(batch)),
            None => self.scan_here(batch),
        }
    }

    fn scan_here(&self, batch: &[Piece]) -> Result<Summary, CheckError> {
        let mut buffer = PieceBuffer::default();
        batch.iter().try_fold(Summary::EMPTY, |sum, piece| {
            let next = scan_piece(self.tables, self.used, piece, &mut buffer)?;
            Ok(sum.then(next, self.tables.layout.cluster_size()))
        })
    }

    fn scan_parallel(&self, batch: &[Piece]) -> Result<Summary, CheckError> {
        let cluster_size = self.tables.layout.cluster_size();
        let one = |piece: &Piece| {
            let thread = rayon::current_thread_index().unwrap_or(0);
            let mut buffer = self.buffers[thread].lock().unwrap_or_else(PoisonError::into_inner);
            scan_piece(self.tables, self.used, piece, &mut buffer)
        };
        batch
            .par_iter()
            .map(one)
            .try_reduce(|| Summary::EMPTY, |sum, next| Ok(sum.then(next, cluster_size)))
    }
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).max(MIN_THREADS)
}

fn scan_piece(
    tables: &Tables<'_>,
    used: &ClusterSet,
    piece: &Piece,
    buffer: &mut PieceBuffer,
) -> Result<Summary, CheckError> {
    let entries = &*buffer.read(tables, piece)?;
    let mut summary = scan_entries(tables, used, piece.l1, entries)?;
    let in_image = tables.layout.entries_in_image(piece.l1).saturating_sub(piece.first);
    let in_image = usize::try_from(in_image).unwrap_or(usize::MAX).min(entries.len());
    summary.sound &= entries[in_image..].iter().all(|entry| entry.get() == 0);
    Ok(summary)
}

/// Splits the entries into runs whose clusters follow each other on the host and claims each.
fn scan_entries(
    tables: &Tables<'_>,
    used: &ClusterSet,
    l1: L1Index,
    entries: &[TableEntry],
) -> Result<Summary, CheckError> {
    let cluster_size = tables.layout.cluster_size();
    let mut summary = Summary::EMPTY;
    // The run so far is start..next; the first cluster of the piece ends an empty one.
    let (mut start, mut next) = (0, 0);
    for entry in entries {
        let value = entry.get();
        if value <= 1 {
            summary.zero += value;
            continue;
        }
        summary.allocated += 1;
        if value != next {
            if next != 0 || start != 0 {
                summary.sound &= claim(tables, used, start, next)?;
                summary.fragmented += 1;
            } else {
                summary.first = Some((l1, value));
            }
            start = value;
            next = value;
        }
        next = next.wrapping_add(cluster_size);
    }
    if next != 0 || start != 0 {
        summary.sound &= claim(tables, used, start, next)?;
        summary.last = Some((l1, next.wrapping_sub(cluster_size)));
    }
    Ok(summary)
}

/// Claims the clusters of the bytes `start..end`; returns whether all of it is in order.
fn claim(tables: &Tables<'_>, used: &ClusterSet, start: u64, end: u64) -> Result<bool, CheckError> {
    let layout = &tables.layout;
    if start & (layout.cluster_size() - 1) != 0 {
        return Ok(false);
    }
    // A run that wraps around at 2^64 starts past the end of any file.
    let run = start >> layout.cluster_bits()..end >> layout.cluster_bits();
    let taken = used.insert(run.clone())?;
    Ok(taken == 0 && run.start < run.end && run.end <= layout.whole_clusters)
}
