//! Opening a journal after a crash: everything is read and checked, then shown in memory or written
//! home, then the ring begins anew.
//!
//! Nothing is written before all of the log was checked. Each step is a type that only the step
//! before it can make.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::Arc;

use qed_io::{Growth, Storage};
use qed_spec::{ClusterCount, Epoch, HostOffset, JournalSequence};

use crate::error::{JournalAction, JournalError, JournalFault, RecoveryError};
use crate::home::{HomeFault, write_home};
use crate::journal::Journal;
use crate::overlay::Overlay;
use crate::owner::{HomeIsDurable, Owner, TailMove};
use crate::scan::{Scan, ScannedCommit};
use crate::setup::{Claim, JournalSetup};

/// A journal that was read and checked, and from which nothing was written yet.
#[derive(Clone)]
pub struct Recovery {
    storage: Arc<dyn Storage>,
    setup: JournalSetup,
    /// The number of the block that comes after the last commit.
    head: JournalSequence,
    commits: u64,
    last_crc32c: Option<u32>,
    physical_size: Option<ClusterCount>,
}

/// A journal whose commits are all in the tables, durably.
#[derive(Debug)]
#[must_use = "the ring is not usable before its tail has moved"]
pub struct Replayed {
    recovery: Recovery,
    home: HomeIsDurable,
}

/// Runs of slots that a replay collects before it writes them home, so that a piece of a table that
/// many commits changed is written once.
const REPLAY_RUNS: usize = 1 << 18;

impl Recovery {
    /// Reads and checks the journal of an image that has JOURNAL_ACTIVE set.
    ///
    /// `judge` is asked about each claim in order, and its refusal ends the reading. What it need
    /// not ask is said at [`Claim`]. Takes memory for one commit, whatever the size of the ring.
    ///
    /// # Errors
    /// [`RecoveryError::Corrupt`] when a block that was durable is lost, or says what must not be
    /// followed. Such an image is not written.
    // spec: QED-JRN-23
    pub fn read(
        storage: Arc<dyn Storage>,
        setup: JournalSetup,
        mut judge: impl FnMut(Claim) -> io::Result<bool>,
    ) -> Result<Self, RecoveryError> {
        let mut bounds = Bounds::new(&*storage, &setup)?;
        let mut scan = Scan::new(&*storage, &setup);
        let mut commits = 0;
        while let Some(commit) = scan.next_commit()? {
            bounds.check(&commit, &mut judge)?;
            commits += 1;
        }
        let (head, last_crc32c) = (scan.next(), scan.last_crc32c());
        let physical_size = bounds.physical_size;
        Ok(Self { storage, setup, head, commits, last_crc32c, physical_size })
    }

    /// Commits that recovery finds.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Blocks of those commits.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.head.since(self.setup.ring.tail())
    }

    /// Clusters of the image file as the last commit has them; none without a commit.
    #[must_use]
    pub fn physical_size(&self) -> Option<ClusterCount> {
        self.physical_size
    }

    /// What the commits say about the tables, for an image that is only read.
    ///
    /// # Errors
    /// [`RecoveryError::OverlayTooLarge`] for more than `max_runs` runs; else a failed read.
    pub fn overlay(&self, max_runs: usize) -> Result<Overlay, RecoveryError> {
        let mut overlay = Overlay::default();
        self.each_commit(|commit| {
            self.add(&mut overlay, commit);
            if overlay.runs() > max_runs {
                return Err(RecoveryError::OverlayTooLarge { max: max_runs });
            }
            Ok(())
        })?;
        Ok(overlay)
    }

    /// Makes the file as long as the last commit asks for, writes every slot home, and flushes.
    ///
    /// A crash at any moment leaves a journal that can be replayed again: values are absolute, and
    /// the tail has not moved.
    ///
    /// # Errors
    /// [`RecoveryError::Io`]; the image can be recovered again.
    // spec: QED-JRN-22, QED-JRN-23
    pub fn replay(self) -> Result<Replayed, RecoveryError> {
        self.set_length()?;
        let mut overlay = Overlay::default();
        self.each_commit(|commit| {
            self.add(&mut overlay, commit);
            if overlay.runs() < REPLAY_RUNS {
                return Ok(());
            }
            self.write_home(&std::mem::take(&mut overlay))
        })?;
        self.write_home(&overlay)?;
        let home = HomeIsDurable::after(&*self.storage)
            .map_err(io_error(JournalAction::Flush, HostOffset::default()))?;
        Ok(Replayed { recovery: self, home })
    }

    /// Goes through the commits a second time, those that were checked and no more.
    fn each_commit(
        &self,
        mut visit: impl FnMut(&ScannedCommit) -> Result<(), RecoveryError>,
    ) -> Result<(), RecoveryError> {
        let mut scan = Scan::new(&*self.storage, &self.setup);
        for _ in 0..self.commits {
            visit(&scan.next_commit()?.ok_or(RecoveryError::Changed)?)?;
        }
        // The chain of checksums ends alike, so everything before is alike.
        if (scan.next(), scan.last_crc32c()) == (self.head, self.last_crc32c) {
            Ok(())
        } else {
            Err(RecoveryError::Changed)
        }
    }

    fn add(&self, overlay: &mut Overlay, commit: &ScannedCommit) {
        let slots = commit.records.iter().filter_map(|record| record.slots(self.setup.geometry));
        slots.for_each(|slots| overlay.set(&slots));
    }

    fn write_home(&self, overlay: &Overlay) -> Result<(), RecoveryError> {
        write_home(&*self.storage, overlay).map_err(|HomeFault { at, source }| RecoveryError::Io {
            action: JournalAction::WriteHome,
            at,
            source,
        })
    }

    /// A file that is shorter than the last commit says grows. One that is longer stays so: no table
    /// names what lies there, and to free space takes some file systems longer than all the rest.
    fn set_length(&self) -> Result<(), RecoveryError> {
        let len = self.physical_size.and_then(|size| self.setup.image_len(size));
        let Some(len) = len.filter(|_| self.storage.growth() == Growth::Zeros) else {
            return Ok(());
        };
        let fault = io_error(JournalAction::SetLength, HostOffset::new(len));
        match self.storage.len() {
            Ok(found) if found >= len => Ok(()),
            Ok(_) => self.storage.set_len(len).map_err(fault),
            Err(error) => Err(fault(error)),
        }
    }
}

impl Replayed {
    /// Clusters of the image file as the last commit has them; none without a commit.
    #[must_use]
    pub fn physical_size(&self) -> Option<ClusterCount> {
        self.recovery.physical_size
    }

    /// Moves the tail past everything and begins `epoch`, a random number unlike the one before.
    /// JOURNAL_ACTIVE stays set; [`Journal::quiesce`] clears it.
    ///
    /// # Errors
    /// [`JournalError::Fatal`] when the owner could not write the superblock. The image can be
    /// recovered again.
    // spec: QED-JRN-24
    pub fn restart(self, owner: &dyn Owner, epoch: Epoch) -> Result<Journal, JournalError> {
        let Self { recovery: Recovery { storage, setup, head, .. }, home } = self;
        let fatal = |source| JournalError::Fatal { action: JournalAction::MoveTail, source };
        let state = |head: JournalSequence| setup.ring.with_state(head, head.previous());
        let next = state(head).ok().filter(|ring| !ring.is_running_out());
        // Another epoch, so no number that was there before comes again.
        let ring = next.map_or_else(|| state(JournalSequence::FIRST), Ok);
        let ring = ring.map_err(|error| fatal(io::Error::other(error)))?;
        let moved = owner.move_tail(TailMove::new(ring, epoch, home)).map_err(fatal)?;
        Ok(Journal::active(storage, setup, moved))
    }
}

impl Debug for Recovery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Recovery");
        shown.field("setup", &self.setup).field("head", &self.head);
        shown.field("commits", &self.commits).finish_non_exhaustive()
    }
}

/// What a commit must keep to, whatever the owner says.
struct Bounds<'a> {
    setup: &'a JournalSetup,
    /// Bytes of the block device; none for a file, which can grow.
    device_len: Option<u64>,
    physical_size: Option<ClusterCount>,
}

impl<'a> Bounds<'a> {
    fn new(storage: &dyn Storage, setup: &'a JournalSetup) -> Result<Self, RecoveryError> {
        let fault = io_error(JournalAction::ReadRing, setup.ring.offset());
        let len = storage.len().map_err(fault)?;
        let device_len = (storage.growth() == Growth::Stale).then_some(len);
        Ok(Self { setup, device_len, physical_size: None })
    }

    // spec: QED-JRN-08, QED-JRN-14
    fn check(
        &mut self,
        commit: &ScannedCommit,
        judge: &mut impl FnMut(Claim) -> io::Result<bool>,
    ) -> Result<(), RecoveryError> {
        let corrupt = |fault| self.setup.corrupt(commit.first, fault);
        let at = self.setup.ring.offset_of(commit.first);
        let mut ask = |claim| judge(claim).map_err(io_error(JournalAction::Judge, at));
        let size = commit.physical_size;
        let image_len = self.setup.image_len(size);
        let image_len = image_len.filter(|len| self.device_len.is_none_or(|max| *len <= max));
        let Some(image_len) = image_len.filter(|_| self.physical_size.is_none_or(|it| it <= size))
        else {
            return Err(corrupt(JournalFault::PhysicalSize { found: size }));
        };
        if self.physical_size != Some(size) && !ask(Claim::PhysicalSize(size))? {
            return Err(corrupt(JournalFault::PhysicalSize { found: size }));
        }
        for record in &commit.records {
            if !self.setup.contains(record, image_len) || !ask(Claim::Record(*record))? {
                return Err(corrupt(JournalFault::Refused { record: *record }));
            }
        }
        self.physical_size = Some(size);
        Ok(())
    }
}

fn io_error(action: JournalAction, at: HostOffset) -> impl FnOnce(io::Error) -> RecoveryError {
    move |source| RecoveryError::Io { action, at, source }
}
