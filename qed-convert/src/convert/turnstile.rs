//! Guest order without a queue: jobs run in parallel and take turns where order matters.
//!
//! Knows guest offsets and nothing of what a job does. The job that starts lowest never waits, so
//! the turns cannot lock up.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::convert::ConvertError;

/// Whether jobs take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Space in the target is given out in guest order, whatever the number of threads: the same
    /// source makes the same file.
    Guest,
    /// Space is given out as threads come.
    Any,
}

#[derive(Debug)]
pub(crate) struct Turnstile {
    order: Order,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Where the jobs that still have their turn start.
    waiting: BTreeSet<u64>,
    /// Where the next job will start.
    next: u64,
    stopped: bool,
}

/// The place of one job in the order, given up when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turnstile: &'a Turnstile,
    at: u64,
}

impl Turnstile {
    pub(crate) fn new(order: Order) -> Self {
        Self { order, state: Mutex::default(), moved: Condvar::new() }
    }

    /// Lines up a job for guest bytes `at..end`. Jobs enter in ascending order.
    pub(crate) fn enter(&self, at: u64, end: u64) -> Turn<'_> {
        let mut state = self.state();
        state.waiting.insert(at);
        state.next = end;
        Turn { turnstile: self, at }
    }

    /// Turns every wait into an error, now and from now on.
    pub(crate) fn stop(&self) {
        self.state().stopped = true;
        self.moved.notify_all();
    }

    /// Whether the work was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Waits until every job that starts lower has given up its turn.
    ///
    /// # Errors
    /// [`ConvertError::Cancelled`] when the work was stopped; the thread that stopped it knows why.
    pub(crate) fn wait(&self) -> Result<(), ConvertError> {
        let mut state = self.turnstile.state();
        while self.turnstile.order == Order::Guest
            && !state.stopped
            && state.waiting.first().is_some_and(|first| *first < self.at)
        {
            state = self.turnstile.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped { Err(ConvertError::Cancelled) } else { Ok(()) }
    }

    /// Two turns for one: of the guest bytes before `at`, and of those from there on.
    pub(crate) fn split(self, at: u64) -> (Self, Self) {
        self.turnstile.state().waiting.insert(at);
        let later = Self { turnstile: self.turnstile, at };
        (self, later)
    }

    /// The guest offset below which no job has a turn any more.
    pub(crate) fn settled(&self) -> u64 {
        let state = self.turnstile.state();
        state.waiting.first().copied().unwrap_or(state.next)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turnstile.state().waiting.remove(&self.at);
        self.turnstile.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_guest_order_from_any_thread() {
        let turnstile = Turnstile::new(Order::Guest);
        let turns: Vec<_> = (0..8).map(|at| turnstile.enter(at, at + 1)).collect();
        let seen = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for turn in turns.into_iter().rev() {
                let seen = &seen;
                scope.spawn(move || {
                    turn.wait().unwrap();
                    assert_eq!(turn.settled(), turn.at);
                    seen.lock().unwrap().push(turn.at);
                });
            }
        });
        assert_eq!(*seen.lock().unwrap(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn stopping_wakes_those_who_wait() {
        let turnstile = Turnstile::new(Order::Guest);
        let first = turnstile.enter(0, 1);
        let second = turnstile.enter(1, 2);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| second.wait());
            turnstile.stop();
            assert!(matches!(waiter.join().unwrap(), Err(ConvertError::Cancelled)));
        });
        assert!(matches!(first.wait(), Err(ConvertError::Cancelled)));
    }

    #[test]
    fn without_order_nobody_waits() {
        let turnstile = Turnstile::new(Order::Any);
        let first = turnstile.enter(0, 1);
        let second = turnstile.enter(1, 2);
        second.wait().unwrap();
        assert_eq!(second.settled(), 0);
        drop(second);
        drop(first);
        assert_eq!(turnstile.enter(5, 6).settled(), 5);
    }
}
