//! Sweeps: all tables are read for the clusters that none of them names, which are free then.
//!
//! In steps beside requests, or at once where space has run out; never when an image is opened. What it finds
//! is `space/sweep.rs`, the walk through the tables is `map/walk.rs`.

use std::thread;
use std::time::{Duration, Instant};

use qed_spec::ErrorKind;

use crate::error::ImageError;
use crate::image::Image;
use crate::map::walk::Walk;
use crate::space::free::Verdict;
use crate::space::sweep::{PAUSE, STEP, Sweep};

/// How long a request that needs space waits for others to end, which is all that a sweep waits for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request that needs space waits for a sweep; then it goes on without it.
const AT_ONCE: Duration = Duration::from_secs(60);
/// How often it asks.
const ASK_AFTER: Duration = Duration::from_micros(100);

/// How far a sweep has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweeping {
    /// None runs, and none is wanted.
    No,
    /// It waits for requests to end.
    Waits,
    /// There is more to read.
    GoesOn,
}

impl Image {
    /// Reads all tables for clusters that none of them names, unless that was done since the image was
    /// opened, and makes free what earlier requests let go of; returns whether free space is known now.
    ///
    /// The caller has no [`crate::Request`]: requests in flight are waited for, a few seconds at most.
    ///
    /// # Errors
    /// [`ImageError::Corrupt`] where a cluster is named twice or an entry breaks another rule: no
    /// space is used again until a check has repaired that. Else as [`Image::flush`], or a table that
    /// cannot be read.
    // spec: QED-FREE-10
    pub fn sweep(&self) -> Result<bool, ImageError> {
        let is_broken = matches!(self.space.alloc.free.verdict(), Verdict::Broken(_));
        if !is_broken && self.space.alloc.end.wants_sweep()? {
            self.space.want_new_sweep();
        }
        if !self.space.alloc.free.is_judged() {
            self.space.want_new_sweep();
        }
        self.sweep_to_the_end()?;
        let free = &self.space.alloc.free;
        if let Verdict::Broken(finding) = free.verdict() {
            return Err(finding.into());
        }
        if free.is_any_away() {
            self.flush()?;
            let until = Instant::now() + PATIENCE;
            self.space.reclaim();
            while (free.is_waiting() || free.wants_punch()) && Instant::now() < until {
                thread::sleep(ASK_AFTER);
                self.space.reclaim();
            }
        }
        Ok(free.verdict() == Verdict::Sound)
    }

    /// Reads all tables again, also where that was done since the image was opened: what was damaged
    /// since is found. Whether all were read; a sweep that takes longer than a minute goes on with
    /// [`Image::maintain`].
    ///
    /// Requests go on beside it. An image in which something was found already is not read again.
    ///
    /// # Errors
    /// As [`Image::sweep`].
    // spec: QED-FREE-10
    pub fn sweep_again(&self) -> Result<bool, ImageError> {
        if let Verdict::Broken(finding) = self.space.alloc.free.verdict() {
            return Err(finding.into());
        }
        self.space.want_new_sweep();
        let is_ended = self.sweep_to_the_end()?;
        match self.space.alloc.free.verdict() {
            Verdict::Broken(finding) => Err(finding.into()),
            Verdict::Unknown | Verdict::Sound => Ok(is_ended),
        }
    }

    /// Sweeps until no sweep is wanted any more, or for a minute; whether none is.
    fn sweep_to_the_end(&self) -> Result<bool, ImageError> {
        // In steps here, too: others wait for the sweep, and for the request that it is.
        let at_most = Instant::now() + AT_ONCE;
        let mut waits_until = Instant::now() + PATIENCE;
        while Instant::now() < at_most {
            match self.sweep_for_a_while()? {
                // A second one is for what was let go while the first ran.
                Sweeping::No if self.space.wants_sweep() => {}
                Sweeping::No => return Ok(true),
                Sweeping::GoesOn => waits_until = Instant::now() + PATIENCE,
                Sweeping::Waits if Instant::now() > waits_until => return Ok(false),
                Sweeping::Waits => thread::sleep(ASK_AFTER),
            }
        }
        Ok(false)
    }

    /// Whether a request that found no space may find some now.
    pub(super) fn finds_space(&self, error: &ImageError) -> bool {
        error.kind() == ErrorKind::NoSpace
            && self.sweep().is_ok_and(|is_known| {
                is_known && (self.space.alloc.free.has_any() || self.space.alloc.end.has_room())
            })
    }

    /// Makes free what is due, and goes on with a sweep for a while; when to call again.
    pub(super) fn maintain_space(&self, now: Instant) -> Result<Option<Instant>, ImageError> {
        self.space.reclaim();
        let sweeping = self.sweep_for_a_while()?;
        let free = &self.space.alloc.free;
        let goes_on = sweeping != Sweeping::No || free.is_waiting() || free.wants_punch();
        Ok(goes_on.then(|| now + PAUSE))
    }

    /// Goes on with the sweep that is wanted, for no longer than requests should wait beside it.
    pub(super) fn sweep_for_a_while(&self) -> Result<Sweeping, ImageError> {
        let until = Instant::now() + STEP;
        if self.flush_for_sweep()? {
            return Ok(Sweeping::GoesOn);
        }
        let mut running = self.space.sweep();
        if running.is_none() && self.space.wants_sweep() {
            *running = self.space.begin_sweep();
        }
        let Some(sweep) = running.as_mut() else { return Ok(Sweeping::No) };
        if !sweep.is_flushed || !self.space.guards.has_passed(sweep.began) {
            return Ok(Sweeping::Waits);
        }
        // A change of the image's shape goes first, and begins the sweep anew.
        let Some(_request) = self.try_request() else { return Ok(Sweeping::Waits) };
        match self.read_for(sweep, until) {
            Ok(false) => return Ok(Sweeping::GoesOn),
            Ok(true) => running.take().into_iter().for_each(|sweep| self.space.end_sweep(sweep)),
            Err(error) => {
                *running = None;
                // A finding is what the sweep is for, and is told where space is asked for.
                let ImageError::Corrupt(finding) = error else {
                    self.space.abandon_sweep(None);
                    self.space.give_up_sweeps();
                    return Err(error);
                };
                self.space.abandon_sweep(Some(finding));
            }
        }
        Ok(Sweeping::No)
    }

    /// Makes durable what changed the tables before the sweep began, once; whether it did. A resize that
    /// failed has un-named clusters that the file may name yet, and nobody let go of them one by one.
    // spec: QED-FREE-02
    fn flush_for_sweep(&self) -> Result<bool, ImageError> {
        let due = |sweep: &Sweep| {
            (!sweep.is_flushed && self.space.guards.has_passed(sweep.began)).then_some(sweep.number)
        };
        let Some(number) = self.space.sweep().as_ref().and_then(due) else { return Ok(false) };
        // Without the sweep: whoever flushes may hold the metadata lock when it comes to that.
        let changes = self.space.unnamings();
        self.durability.flush(self.cx())?;
        self.space.unnamings_are_durable(changes);
        if let Some(sweep) = self.space.sweep().as_mut() {
            sweep.is_flushed |= sweep.number == number;
        }
        Ok(true)
    }

    /// Reads tables until all are read, or `until` comes; whether all are.
    fn read_for(&self, sweep: &mut Sweep, until: Instant) -> Result<bool, ImageError> {
        let free = &self.space.alloc.free;
        let mut walk = Walk::from(sweep.place);
        loop {
            let more = self.map.walk_on(&mut walk, |run, by| match sweep.name(&run, free) {
                None => Ok(()),
                Some(cluster) => Err(self.map.named_twice(by, run.start, cluster)),
            })?;
            sweep.place = walk.place();
            if !more {
                break;
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
        let past_disk = self.map.l1.first_past_disk(&**self.head.storage())?;
        past_disk.map_or(Ok(true), |finding| Err(finding.into()))
    }
}
