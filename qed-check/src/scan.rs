//! The fast pass over all L2 tables, in parallel: claims clusters, counts, and notices whether any
//! entry is out of order, without saying which.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qed_layout::{ClusterSet, LocalSet, OverBudget, Piece, PieceBuffer};
use qed_spec::{L1Index, TableEntry};
use rayon::prelude::*;

use crate::error::CheckError;
use crate::layout::Layout;
use crate::metadata::Metadata;
use crate::tables::Tables;

/// Pieces that are handed to the threads at once.
const BATCH_PIECES: usize = 4096;
/// Pieces that make threads worth their start, unless the caller asks for threads.
const MIN_PARALLEL_PIECES: usize = 4;
/// Threads at least, so that a disk always has several reads to work on.
const MIN_THREADS: usize = 12;
/// Entries that are looked at together.
const GROUP: usize = 8;
/// Memory for the threads' own sets of claims; more only where one set for all is faster anyway.
const LOCAL_BYTES: u64 = 8 << 20;

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
    used: &mut ClusterSet,
    threads: Option<NonZeroUsize>,
) -> Result<Summary, CheckError> {
    let mut scanner = Scanner { tables, used: &*used, threads, pool: None, claims: Vec::new() };
    let mut total = Summary::EMPTY;
    let cluster_size = tables.layout.cluster_size();
    let mut batch = Vec::new();
    metadata.for_each_table(tables, |l1, start| {
        for piece in tables.l2_pieces(start) {
            batch.push(TablePiece { l1, piece: piece? });
            if batch.len() == BATCH_PIECES {
                total = total.then(scanner.scan(&batch)?, cluster_size);
                batch.clear();
            }
        }
        Ok(())
    })?;
    total = total.then(scanner.scan(&batch)?, cluster_size);
    for claims in std::mem::take(&mut scanner.claims) {
        let claims = claims.into_inner().unwrap_or_else(PoisonError::into_inner);
        total.sound &= used.absorb(&claims)?;
    }
    Ok(total)
}

/// A piece of an L2 table, and the L1 slot that names the table.
struct TablePiece {
    l1: L1Index,
    piece: Piece,
}

/// The threads and what they share.
struct Scanner<'a> {
    tables: &'a Tables<'a>,
    used: &'a ClusterSet,
    threads: Option<NonZeroUsize>,
    /// Started with the first batch that is worth it.
    pool: Option<Pool>,
    /// Claims that are not in `used` yet: one set for each processor, if they are small. A thread
    /// reads without one and takes one to work on what it has read.
    claims: Vec<Mutex<LocalSet>>,
}

struct Pool {
    threads: rayon::ThreadPool,
    /// One for each thread, so that the memory stays where it is.
    buffers: Vec<Mutex<PieceBuffer>>,
}

impl Scanner<'_> {
    fn scan(&mut self, batch: &[TablePiece]) -> Result<Summary, CheckError> {
        // Threads cost more to start than a few tables to read, and so does asking how many there are.
        let is_small = batch.len() < if self.threads.is_some() { 2 } else { MIN_PARALLEL_PIECES };
        if self.pool.is_none() && is_small {
            return self.scan_here(batch);
        }
        if self.pool.is_none() {
            let threads = self.threads.map_or_else(default_threads, NonZeroUsize::get);
            if threads == 1 {
                return self.scan_here(batch);
            }
            self.start(threads)?;
        }
        match &self.pool {
            Some(pool) => pool.threads.install(|| self.scan_parallel(batch, &pool.buffers)),
            None => self.scan_here(batch),
        }
    }

    fn start(&mut self, threads: usize) -> Result<(), CheckError> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder.build().map_err(CheckError::Threads)?;
        let buffers = (0..threads).map(|_| Mutex::default()).collect();
        self.pool = Some(Pool { threads: pool, buffers });
        let clusters = self.tables.layout.clusters;
        let count = processors().min(threads).min(affordable_sets(clusters));
        self.claims = (0..count).map(|_| Mutex::new(LocalSet::new(clusters))).collect();
        Ok(())
    }

    fn scan_here(&self, batch: &[TablePiece]) -> Result<Summary, CheckError> {
        let mut buffer = PieceBuffer::default();
        batch.iter().try_fold(Summary::EMPTY, |sum, piece| {
            let next = self.scan_piece(piece, &mut buffer, 0)?;
            Ok(sum.then(next, self.tables.layout.cluster_size()))
        })
    }

    fn scan_parallel(
        &self,
        batch: &[TablePiece],
        buffers: &[Mutex<PieceBuffer>],
    ) -> Result<Summary, CheckError> {
        let cluster_size = self.tables.layout.cluster_size();
        let one = |piece: &TablePiece| {
            let thread = rayon::current_thread_index().unwrap_or(0);
            let mut buffer = lock(&buffers[thread]);
            self.scan_piece(piece, &mut buffer, thread)
        };
        batch
            .par_iter()
            .map(one)
            .try_reduce(|| Summary::EMPTY, |sum, next| Ok(sum.then(next, cluster_size)))
    }

    fn scan_piece(
        &self,
        TablePiece { l1, piece }: &TablePiece,
        buffer: &mut PieceBuffer,
        thread: usize,
    ) -> Result<Summary, CheckError> {
        let layout = &self.tables.layout;
        let entries = &*buffer.read(self.tables.storage, piece)?;
        let mut failed = None;
        let mut summary = if self.claims.is_empty() {
            let claims = SharedClaims { used: self.used, failed: &mut failed };
            scan_entries(layout, *l1, entries, claims)
        } else {
            let mut claims = lock(&self.claims[thread % self.claims.len()]);
            scan_entries(layout, *l1, entries, &mut *claims)
        };
        if let Some(over) = failed {
            return Err(over.into());
        }
        let in_image = layout.entries_in_image(*l1).saturating_sub(piece.first);
        let in_image = usize::try_from(in_image).unwrap_or(usize::MAX).min(entries.len());
        summary.sound &= entries[in_image..].iter().all(|entry| entry.get() == 0);
        Ok(summary)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn default_threads() -> usize {
    processors().max(MIN_THREADS)
}

/// How many sets of claims of so many clusters the threads may have.
fn affordable_sets(clusters: u64) -> usize {
    let sets = LOCAL_BYTES / ClusterSet::full_bytes(clusters).max(1);
    usize::try_from(sets).unwrap_or(usize::MAX)
}

/// Claims what the entries name.
fn scan_entries(
    layout: &Layout,
    l1: L1Index,
    entries: &[TableEntry],
    claims: impl Claims,
) -> Summary {
    let mut scan = EntryScan {
        layout,
        claims,
        cluster_size: layout.cluster_size(),
        whole_bytes: layout.whole_clusters << layout.cluster_bits(),
        next: 0,
        first: 0,
        summary: Summary::EMPTY,
    };
    let (groups, rest) = entries.as_chunks();
    for group in groups {
        if !scan.claim_run(group) && !scan.claim_scattered(group) {
            group.iter().for_each(|entry| scan.claim_one(entry.get()));
        }
    }
    rest.iter().for_each(|entry| scan.claim_one(entry.get()));
    scan.finish(l1)
}

/// Where claims go.
trait Claims {
    /// Claims `count` clusters, at most 64, from `first`, all of them in the file; returns whether
    /// nobody had claimed any.
    fn claim(&mut self, first: u64, count: u64) -> bool;
}

impl Claims for &mut LocalSet {
    #[inline(always)]
    fn claim(&mut self, first: u64, count: u64) -> bool {
        self.insert(first, count)
    }
}

/// Claims in the set that all threads share. Once the set is over its budget, claims are lost and
/// the check fails with `failed`.
struct SharedClaims<'a> {
    used: &'a ClusterSet,
    failed: &'a mut Option<OverBudget>,
}

impl Claims for SharedClaims<'_> {
    fn claim(&mut self, first: u64, count: u64) -> bool {
        match self.used.insert(first..first + count) {
            Ok(taken) => taken.is_none(),
            Err(over) => {
                *self.failed = Some(over);
                true
            }
        }
    }
}

/// The innermost loop. A scattered cluster costs a wait for memory, and the processor waits for as
/// many at once as fit its window: what is done for each entry must be little.
struct EntryScan<'a, C> {
    layout: &'a Layout,
    claims: C,
    cluster_size: u64,
    /// End of the last cluster that is there in full, in bytes.
    whole_bytes: u64,
    /// Where the cluster after the last one would start, in bytes; 0 before the first.
    next: u64,
    /// Where the first cluster starts.
    first: u64,
    summary: Summary,
}

impl<C: Claims> EntryScan<'_, C> {
    /// Claims eight entries at once if their clusters follow each other; else does nothing and
    /// returns false.
    #[inline(always)]
    fn claim_run(&mut self, group: &[TableEntry; GROUP]) -> bool {
        let (start, last) = (group[0].get(), group[GROUP - 1].get());
        // All that scattered clusters pay for the attempt.
        if last.wrapping_sub(start) != (GROUP as u64 - 1) << self.layout.cluster_bits() {
            return false;
        }
        let mut expected = start;
        let mut difference = 0;
        for entry in group {
            difference |= entry.get() ^ expected;
            expected = expected.wrapping_add(self.cluster_size);
        }
        let is_right = self.is_right(start) & self.is_right(last);
        if difference != 0 || !is_right || self.first == 0 {
            return false;
        }
        self.count_group(u64::from(start != self.next), expected);
        let cluster = start >> self.layout.cluster_bits();
        self.summary.sound &= self.claims.claim(cluster, GROUP as u64);
        true
    }

    /// Claims eight entries at once if all of them name clusters of the file; else does nothing
    /// and returns false.
    #[inline(always)]
    fn claim_scattered(&mut self, group: &[TableEntry; GROUP]) -> bool {
        let values = group.map(|entry| entry.get());
        let is_right = values.iter().fold(true, |right, value| right & self.is_right(*value));
        if !is_right || self.first == 0 {
            return false;
        }
        let mut next = self.next;
        let mut broken = 0_u64;
        for value in values {
            broken = broken.wrapping_add(u64::from(value != next));
            next = value.wrapping_add(self.cluster_size);
        }
        self.count_group(broken, next);
        let bits = self.layout.cluster_bits();
        let claim = |free, value| free & self.claims.claim(value >> bits, 1);
        self.summary.sound &= values.into_iter().fold(true, claim);
        true
    }

    #[inline(always)]
    fn count_group(&mut self, broken: u64, next: u64) {
        self.summary.allocated = self.summary.allocated.wrapping_add(GROUP as u64);
        self.summary.fragmented = self.summary.fragmented.wrapping_add(broken);
        self.next = next;
    }

    /// Whether `value` is the start of a cluster that is there in full. The header's is meant to be
    /// found claimed.
    #[inline(always)]
    fn is_right(&self, value: u64) -> bool {
        (value & (self.cluster_size - 1) == 0) & (value > 1) & (value < self.whole_bytes)
    }

    fn claim_one(&mut self, value: u64) {
        if value <= 1 {
            self.summary.zero += value;
            return;
        }
        if self.first == 0 {
            self.first = value;
            self.next = value;
        }
        self.summary.allocated += 1;
        self.summary.fragmented += u64::from(value != self.next);
        self.next = value.wrapping_add(self.cluster_size);
        let cluster = value >> self.layout.cluster_bits();
        let is_right = self.is_right(value);
        // A cluster that the end of the file cuts off is in use for all that.
        let is_there =
            is_right || value & (self.cluster_size - 1) == 0 && cluster < self.layout.clusters;
        let was_free = !is_there || self.claims.claim(cluster, 1);
        self.summary.sound &= is_right & was_free;
    }

    fn finish(self, l1: L1Index) -> Summary {
        let mut summary = self.summary;
        if self.first != 0 {
            summary.first = Some((l1, self.first));
            summary.last = Some((l1, self.next.wrapping_sub(self.cluster_size)));
        }
        summary
    }
}

#[cfg(test)]
mod tests;
