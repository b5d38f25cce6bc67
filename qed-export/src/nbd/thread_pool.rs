//! The leader/follower thread pool of one connection: one thread has the reader, the others serve requests or wait for it.
//!
//! The reader is a value, and the thread that holds it reads. A thread that has a request while more are
//! here hands it over to another and goes to work; one that has the only request keeps it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Where the reader lies when no thread has it.
#[derive(Debug)]
pub(super) struct ThreadPool<R> {
    state: Mutex<State<R>>,
    wake: Condvar,
    max_threads: usize,
}

#[derive(Debug)]
struct State<R> {
    reader: Option<R>,
    threads: usize,
    waiting: usize,
    is_over: bool,
}

/// What happens to a reader that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handover {
    /// A thread of the pool takes it, now or when it is done.
    Taken,
    /// One more thread is to be started; it is counted.
    NeedsThread,
}

impl<R> ThreadPool<R> {
    /// A pool of the thread that calls, which has the reader.
    pub(super) fn new(max_threads: usize) -> Self {
        let state = State { reader: None, threads: 1, waiting: 0, is_over: false };
        Self { state: Mutex::new(state), wake: Condvar::new(), max_threads }
    }

    /// Hands the reader over.
    pub(super) fn hand_over(&self, reader: R) -> Handover {
        let mut state = self.state();
        state.reader = Some(reader);
        if state.waiting > 0 {
            drop(state);
            self.wake.notify_one();
            return Handover::Taken;
        }
        if state.threads >= self.max_threads {
            return Handover::Taken;
        }
        state.threads += 1;
        Handover::NeedsThread
    }

    /// The thread that was to be started was not.
    pub(super) fn thread_is_missing(&self) {
        self.state().threads -= 1;
    }

    /// Waits for the reader; none when there is nothing more to read.
    pub(super) fn take_over(&self) -> Option<R> {
        let mut state = self.state();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(reader) = state.reader.take() {
                return Some(reader);
            }
            state.waiting += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// There is nothing more to read.
    pub(super) fn end(&self) {
        self.state().is_over = true;
        self.wake.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_more_is_asked_for_while_none_waits_and_there_may_be_more() {
        let pool = ThreadPool::new(2);
        assert_eq!(pool.hand_over(7), Handover::NeedsThread);
        assert_eq!(pool.take_over(), Some(7));
        assert_eq!(pool.hand_over(7), Handover::Taken, "two is the most");
        pool.thread_is_missing();
        assert_eq!(pool.take_over(), Some(7));
        assert_eq!(pool.hand_over(7), Handover::NeedsThread);
        pool.end();
        assert_eq!(pool.take_over(), None);
    }

    #[test]
    fn the_reader_goes_from_hand_to_hand() {
        let pool = ThreadPool::new(4);
        std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut taken = 0;
                        while let Some(count) = pool.take_over() {
                            if count == 1000 {
                                pool.end();
                                break;
                            }
                            taken += 1;
                            pool.hand_over(count + 1);
                        }
                        taken
                    })
                })
                .collect();
            pool.hand_over(0);
            let taken: usize = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
            assert_eq!(taken, 1000);
        });
    }
}
