//! The thread that keeps the disks in order: it asks them from time to time to do what is due, and tells
//! where their space stands. Knows no client.

use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::contained::contained;
use super::exports::{Export, Exports};
use super::perform::chain;
use crate::device::{DeviceError, SpaceUsage};

/// How often disks are asked what is due, when nothing is said to be sooner; and how often at most.
const MAINTENANCE: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

type Watch = dyn FnMut(&[u8], SpaceUsage) + Send;

/// Who is shown where the space of disks stands.
pub(super) struct SpaceWatch(Box<Watch>);

impl SpaceWatch {
    pub(super) fn new(watch: impl FnMut(&[u8], SpaceUsage) + Send + 'static) -> Self {
        Self(Box::new(watch))
    }
}

impl fmt::Debug for SpaceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpaceWatch")
    }
}

/// Asks the disks from time to time to do what is due, until it is ended.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Maintenance {
    pub(super) fn run(&self, exports: &Exports, mut watch: Option<SpaceWatch>) {
        let mut disks: Vec<_> = exports.iter().map(|export| (export, false)).collect();
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_over {
            drop(is_over);
            let now = Instant::now();
            let mut next = now + MAINTENANCE;
            for (export, is_failing) in &mut disks {
                let maintained = contained(|| maintain(export, now, watch.as_mut()))
                    .unwrap_or_else(|panicked| Err(DeviceError::Failed(panicked.into())));
                if begins(is_failing, maintained.is_err())
                    && let Err(error) = &maintained
                {
                    let (name, error) = (export.name().escape_ascii(), chain(error));
                    tracing::error!(export = %name, %error, "a disk is not kept in order");
                }
                if let Ok(Some(due)) = maintained {
                    next = next.min(due);
                }
            }
            is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
            if !*is_over {
                let left = next.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
                let waited = self.over.wait_timeout(is_over, left);
                is_over = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    pub(super) fn end(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.notify_all();
    }
}

/// Does what is due for one disk, and says when the next is.
fn maintain(
    export: &Export,
    now: Instant,
    watch: Option<&mut SpaceWatch>,
) -> Result<Option<Instant>, DeviceError> {
    let due = export.device.maintain(now)?;
    if let Some(SpaceWatch(watch)) = watch
        && let Some(usage) = export.device.space_usage()?
    {
        watch(export.name(), usage);
    }
    Ok(due)
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
