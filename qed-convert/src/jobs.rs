//! Running jobs on a bounded number of threads: the calling thread and its helpers.
//!
//! Knows neither what a job is nor where jobs come from.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Gives every job that `next` hands out to `work` until there are none, on `threads` threads;
/// `state` makes what each thread keeps from job to job. Returns when all threads have ended.
///
/// After an error no thread begins a job, and `stop` is called to wake those that wait inside one.
/// The first error is returned.
pub(crate) fn run<J, S, E: Send>(
    threads: NonZeroUsize,
    next: impl Fn() -> Result<Option<J>, E> + Sync,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, J) -> Result<(), E> + Sync,
    stop: impl Fn() + Sync,
) -> Result<(), E> {
    let first_error = Mutex::new(None);
    let stopped = AtomicBool::new(false);
    let until_done = || {
        let mut state = state();
        while !stopped.load(Ordering::Relaxed) {
            if let Some(job) = next()? {
                work(&mut state, job)?;
            } else {
                break;
            }
        }
        Ok(())
    };
    let run_thread = || {
        if let Err(error) = until_done() {
            first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            stopped.store(true, Ordering::Relaxed);
            stop();
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            let helper = thread::Builder::new().name("qed-convert".to_owned());
            // Fewer threads than asked for are slower, not wrong.
            if helper.spawn_scoped(scope, run_thread).is_err() {
                break;
            }
        }
        run_thread();
    });
    let error = first_error.into_inner().unwrap_or_else(PoisonError::into_inner);
    error.map_or(Ok(()), Err)
}

/// As many threads as the machine has cores.
pub(crate) fn default_threads() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    fn threads(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).unwrap()
    }

    #[test]
    fn every_job_is_done_once() {
        for count in [1, 2, 8] {
            let (at, sum) = (AtomicU64::new(0), AtomicU64::new(0));
            let next = || {
                let job = at.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>((job < 1000).then_some(job))
            };
            let work = |(): &mut (), job| {
                sum.fetch_add(job, Ordering::Relaxed);
                Ok(())
            };
            run(threads(count), next, || (), work, || ()).unwrap();
            assert_eq!(sum.into_inner(), 499_500, "{count} threads");
        }
    }

    #[test]
    fn an_error_ends_all_threads() {
        let (at, stops) = (AtomicU64::new(0), AtomicU64::new(0));
        let next = || Ok(Some(at.fetch_add(1, Ordering::Relaxed)));
        let work = |(): &mut (), job| if job == 100 { Err(job) } else { Ok(()) };
        let stop = || {
            stops.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(run(threads(4), next, || (), work, stop), Err(100));
        assert_eq!(stops.into_inner(), 1);
    }
}
