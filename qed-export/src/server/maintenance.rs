//! The thread that keeps the disks in order: it asks them from time to time to do what is due, compacts
//! their images when that is asked for, and tells what happens to their space. Knows no client.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::contained::contained;
use super::exports::{Export, Exports};
use crate::device::{Compacted, Compaction, CompactionStep, DeviceError, SpaceUsage, chain};

/// How often disks are asked what is due, when nothing is said to be sooner; and how often at most.
const MAINTENANCE: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// How long the guests of images that are being compacted are left alone between two steps.
const PAUSE: Duration = Duration::from_millis(1);

/// What a service tells of its disks.
#[derive(Debug)]
#[non_exhaustive]
pub enum DiskEvent<'e> {
    /// Where the space of an image stands, about once a second.
    Space(SpaceUsage),
    /// A compaction has ended.
    Compacted(&'e Result<Compacted, DeviceError>),
}

type Watch = dyn FnMut(&[u8], DiskEvent<'_>) + Send;

/// Who is told what happens to the disks, with their names.
pub(super) struct Watcher(Box<Watch>);

impl Watcher {
    pub(super) fn new(watch: impl FnMut(&[u8], DiskEvent<'_>) + Send + 'static) -> Self {
        Self(Box::new(watch))
    }

    fn tell(&mut self, export: &Export, event: DiskEvent<'_>) {
        (self.0)(export.name(), event);
    }
}

impl Default for Watcher {
    fn default() -> Self {
        Self::new(|_, _| {})
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// Asks the disks from time to time to do what is due, until it is ended.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

/// What the thread was told.
#[derive(Debug, Default)]
struct Wanted {
    end: bool,
    /// An export wants to be compacted.
    compaction: bool,
}

/// Has the images of a service compacted, from another thread.
#[derive(Debug, Clone)]
pub struct CompactHandle {
    maintenance: Arc<Maintenance>,
    /// A thread that waits for signals keeps no disk open.
    exports: Vec<Weak<Export>>,
}

impl CompactHandle {
    pub(super) fn new(maintenance: &Arc<Maintenance>, exports: &Exports) -> Self {
        Self {
            maintenance: Arc::clone(maintenance),
            exports: exports.iter().map(Arc::downgrade).collect(),
        }
    }

    /// Begins to compact all images of the service, beside requests; those that are at it go on.
    pub fn compact(&self) {
        let exports = self.exports.iter().filter_map(Weak::upgrade);
        exports.for_each(|export| self.compact_one(&export));
    }

    /// As [`CompactHandle::compact`], only the image of one export.
    pub fn compact_one(&self, export: &Export) {
        export.compaction.is_wanted.store(true, Ordering::Relaxed);
        self.maintenance.wanted().compaction = true;
        self.maintenance.changed.notify_all();
    }
}

impl Maintenance {
    pub(super) fn run(&self, exports: &Exports, mut watcher: Watcher) {
        let mut disks: Vec<_> = exports.iter().map(|export| Disk::new(export)).collect();
        let mut wanted = self.wanted();
        while !wanted.end {
            wanted.compaction = false;
            drop(wanted);
            let now = Instant::now();
            let mut next = now + MAINTENANCE;
            for disk in &mut disks {
                if disk.export.compaction.is_wanted.swap(false, Ordering::Relaxed) {
                    disk.begin_compaction(&mut watcher);
                }
                if let Some(due) = disk.maintain(now, &mut watcher) {
                    next = next.min(due.max(now + SHORTEST_WAIT));
                }
                if disk.goes_on_compacting(&mut watcher) {
                    next = next.min(Instant::now() + PAUSE);
                }
            }
            wanted = self.wanted();
            if !wanted.end && !wanted.compaction {
                let left = next.saturating_duration_since(Instant::now());
                let waited = self.changed.wait_timeout(wanted, left);
                wanted = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    pub(super) fn end(&self) {
        self.wanted().end = true;
        self.changed.notify_all();
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk that is kept in order.
struct Disk<'e> {
    export: &'e Export,
    is_failing: bool,
    is_damaged: bool,
    compaction: Option<Box<dyn Compaction>>,
}

impl<'e> Disk<'e> {
    fn new(export: &'e Export) -> Self {
        Self { export, is_failing: false, is_damaged: false, compaction: None }
    }

    /// Does what is due, and says when the next is.
    fn maintain(&mut self, now: Instant, watcher: &mut Watcher) -> Option<Instant> {
        let device = self.export.device();
        let maintained = unless_it_panics(|| Ok((device.maintain(now)?, device.space_usage()?)));
        if begins(&mut self.is_failing, maintained.is_err())
            && let Err(error) = &maintained
        {
            let (name, error) = (self.export.shown_name(), chain(error));
            tracing::error!(export = %name, %error, "a disk is not kept in order");
        }
        let (due, usage) = maintained.ok()?;
        if let Some(usage) = usage {
            if begins(&mut self.is_damaged, usage.finding.is_some()) {
                let (name, finding) = (self.export.shown_name(), usage.finding.as_deref());
                tracing::warn!(
                    export = %name, finding, "no space is used again before the image is checked"
                );
            }
            watcher.tell(self.export, DiskEvent::Space(usage));
        }
        due
    }

    fn begin_compaction(&mut self, watcher: &mut Watcher) {
        if self.compaction.is_none() {
            match unless_it_panics(|| self.export.device().compact()) {
                Ok(compaction) => self.compaction = compaction,
                Err(error) => self.end_compaction(Err(error), watcher),
            }
        }
    }

    /// Takes a step of the compaction; whether there is another.
    fn goes_on_compacting(&mut self, watcher: &mut Watcher) -> bool {
        let Some(compaction) = &mut self.compaction else { return false };
        match unless_it_panics(|| compaction.step()) {
            Ok(CompactionStep::Moving { moved, total }) => {
                self.export.compaction.has_come_to(moved, total);
                return true;
            }
            Ok(CompactionStep::Done(compacted)) => {
                self.export.compaction.has_come_to(compacted.moved, compacted.moved);
                self.end_compaction(Ok(compacted), watcher);
            }
            Err(error) => self.end_compaction(Err(error), watcher),
        }
        false
    }

    fn end_compaction(&mut self, ended: Result<Compacted, DeviceError>, watcher: &mut Watcher) {
        self.compaction = None;
        let name = self.export.shown_name();
        match &ended {
            Ok(compacted) => tracing::info!(export = %name, ?compacted, "compacted"),
            Err(error) => tracing::error!(export = %name, error = %chain(error), "not compacted"),
        }
        watcher.tell(self.export, DiskEvent::Compacted(&ended));
    }
}

fn unless_it_panics<T>(work: impl FnOnce() -> Result<T, DeviceError>) -> Result<T, DeviceError> {
    contained(work).unwrap_or_else(|panicked| Err(DeviceError::Failed(panicked.into())))
}

/// Whether what `was` not so is so now; remembers it.
fn begins(was: &mut bool, is: bool) -> bool {
    !std::mem::replace(was, is) && is
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_keeps_failing_is_told_once() {
        let mut was = false;
        let told = [false, true, true, true, false, true].map(|is| begins(&mut was, is));
        assert_eq!(told, [false, true, false, false, false, true]);
    }
}
