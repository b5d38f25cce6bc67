//! The threads of one connection: one has the reader, the others serve requests or wait for it.
//!
//! The reader is a value, and the thread that holds it reads. A thread that has a request while more are
//! here lays it down for another and goes to work; one that has the only request keeps it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Where the reader lies when no thread has it.
#[derive(Debug)]
pub(super) struct Crew<R> {
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

/// What happens to a reader that was laid down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handover {
    /// A thread of the crew takes it, now or when it is done.
    Taken,
    /// One more thread is to be started; it is counted.
    NeedsThread,
}

impl<R> Crew<R> {
    /// A crew of the thread that calls, which has the reader.
    pub(super) fn new(max_threads: usize) -> Self {
        let state = State { reader: None, threads: 1, waiting: 0, is_over: false };
        Self { state: Mutex::new(state), wake: Condvar::new(), max_threads }
    }

    /// Lays the reader down.
    pub(super) fn lay_down(&self, reader: R) -> Handover {
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
    pub(super) fn take_up(&self) -> Option<R> {
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
        let crew = Crew::new(2);
        assert_eq!(crew.lay_down(7), Handover::NeedsThread);
        assert_eq!(crew.take_up(), Some(7));
        assert_eq!(crew.lay_down(7), Handover::Taken, "two is the most");
        crew.thread_is_missing();
        assert_eq!(crew.take_up(), Some(7));
        assert_eq!(crew.lay_down(7), Handover::NeedsThread);
        crew.end();
        assert_eq!(crew.take_up(), None);
    }

    #[test]
    fn the_reader_goes_from_hand_to_hand() {
        let crew = Crew::new(4);
        std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut taken = 0;
                        while let Some(count) = crew.take_up() {
                            if count == 1000 {
                                crew.end();
                                break;
                            }
                            taken += 1;
                            crew.lay_down(count + 1);
                        }
                        taken
                    })
                })
                .collect();
            crew.lay_down(0);
            let taken: usize = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
            assert_eq!(taken, 1000);
        });
    }
}
