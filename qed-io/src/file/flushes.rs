//! The flushes of one file: one at a time, shared by the threads that wait, and none after one that failed.
//!
//! Of writes that were lost the system tells once, and only one of the flushes at the same time.
//! A flush next to that or later would be told that all is durable.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How far they are.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    started: u64,
    ended: u64,
    failed: Option<io::ErrorKind>,
}

impl Flushes {
    /// Returns when a call of `flush` that began after this one, here or in another thread, has
    /// succeeded.
    ///
    /// # Errors
    /// That of `flush`; afterwards one of its kind, and `flush` is called no more.
    pub(super) fn run(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let wanted = state.started + 1;
        loop {
            if let Some(kind) = state.failed {
                return Err(io::Error::new(kind, "an earlier flush failed"));
            }
            if state.ended >= wanted {
                return Ok(());
            }
            if state.ended == state.started {
                break;
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.started += 1;
        drop(state);
        let result = flush();
        let mut state = self.state();
        state.ended += 1;
        state.failed = result.as_ref().err().map(io::Error::kind);
        drop(state);
        self.ended.notify_all();
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn after_one_that_failed_all_fail_and_none_is_made() {
        let flushes = Flushes::default();
        flushes.run(|| Ok(())).unwrap();
        let error = flushes.run(|| Err(io::Error::other("lost"))).unwrap_err();
        assert_eq!(error.to_string(), "lost");
        for _ in 0..2 {
            let error = flushes.run(|| unreachable!("no flush after one that failed")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Other);
        }
    }

    /// Results of three flushes that were asked for while another was under way, and how many of
    /// them were made. All end as `result` says.
    fn asked_meanwhile(
        result: fn() -> io::Result<()>,
        first: fn() -> io::Result<()>,
    ) -> (u32, u32) {
        let flushes = Flushes::default();
        let (made, succeeded) = (AtomicU32::new(0), AtomicU32::new(0));
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let flushes = &flushes;
            scope.spawn(move || {
                let _ = flushes.run(|| {
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    first()
                });
            });
            has_begun.recv().unwrap();
            for _ in 0..3 {
                scope.spawn(|| {
                    let flush = || {
                        made.fetch_add(1, Ordering::Relaxed);
                        result()
                    };
                    if flushes.run(flush).is_ok() {
                        succeeded.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            assert_eq!(made.load(Ordering::Relaxed), 0, "two at a time");
            go_on.send(()).unwrap();
        });
        (made.into_inner(), succeeded.into_inner())
    }

    #[test]
    fn whoever_asks_while_one_is_under_way_has_one_that_began_later() {
        let (made, succeeded) = asked_meanwhile(|| Ok(()), || Ok(()));
        assert!((1..=3).contains(&made), "{made}");
        assert_eq!(succeeded, 3);
    }

    #[test]
    fn a_failure_is_told_to_all_who_wait() {
        let lost = || Err(io::Error::other("lost"));
        assert_eq!(asked_meanwhile(|| Ok(()), lost), (0, 0));
        assert_eq!(asked_meanwhile(lost, || Ok(())), (1, 0));
    }
}
