//! How often something is logged that clients can bring about as often as they like.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long nothing is logged after something was.
const QUIET: Duration = Duration::from_secs(10);

/// When something was last logged that clients can bring about as often as they like.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<Option<Instant>>);

impl Quiet {
    /// Whether it may be logged now; remembers that it is.
    pub(crate) fn may_log(&self) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = logged.is_none_or(|last| now.duration_since(last) >= QUIET);
        if is_due {
            *logged = Some(now);
        }
        is_due
    }
}
