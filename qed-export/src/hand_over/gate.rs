//! Who may use what is handed over: requests while it is here, nobody before it has come and after it was
//! given away. Knows no disk.
//!
//! What is here lies in several lanes, each behind a lock of its own: a request reads the lane of its
//! thread, so that two threads want no cache line of each other, and whoever gives it away takes it out
//! of all lanes, which waits for the requests that are inside. **Invariant:** while the stage is
//! [`Stage::Here`] every lane is full, but for the moment in which a change of stage goes through them; a
//! request that finds its lane empty asks for the stage, and no answer makes it wait for a change that
//! was already told. `tests/interleavings` goes through the orders.

use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use crate::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    thread_number, wait_until,
};

/// More than the processors that most machines have; two threads in one lane only share its line.
const LANES: usize = 16;

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not come yet.
    Awaited,
    /// It is here.
    Here,
    /// It was given away, whole.
    Gone,
    /// It was given away, and that failed: what was to be durable may not be.
    Lost,
}

/// What is handed over, if it is here, and who waits for it.
pub(crate) struct Gate<T> {
    lanes: [Lane<T>; LANES],
    stage: Mutex<Stage>,
    told: Condvar,
    /// Held by a change of the stage for its whole length.
    change: Mutex<()>,
}

/// One copy, on a cache line that holds no other.
#[repr(align(128))]
struct Lane<T>(RwLock<Option<T>>);

/// A request that uses what is here; it stays until this is dropped.
pub(crate) struct Inside<'g, T>(RwLockReadGuard<'g, Option<T>>);

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("a full lane stays full while it is read")
    }
}

impl<T: Clone> Gate<T> {
    /// Nothing is here yet.
    pub(crate) fn new() -> Self {
        Self {
            lanes: std::array::from_fn(|_| Lane(RwLock::new(None))),
            stage: Mutex::new(Stage::Awaited),
            told: Condvar::new(),
            change: Mutex::new(()),
        }
    }

    /// Where it is now.
    pub(crate) fn stage(&self) -> Stage {
        *locked(&self.stage)
    }

    /// As [`Gate::stage`], when the change that goes on, if one does, has ended.
    pub(crate) fn settled_stage(&self) -> Stage {
        let _change = locked(&self.change);
        self.stage()
    }

    /// Begins a request.
    ///
    /// # Errors
    /// Where it is, if that is not here.
    #[inline]
    pub(crate) fn enter(&self) -> Result<Inside<'_, T>, Stage> {
        loop {
            let lane = self.lanes[thread_number() % LANES].0.read();
            let lane = lane.unwrap_or_else(PoisonError::into_inner);
            if lane.is_some() {
                return Ok(Inside(lane));
            }
            drop(lane);
            match self.stage() {
                // It has come since.
                Stage::Here => {}
                stage => return Err(stage),
            }
        }
    }

    /// As [`Gate::enter`], and waits for what has not come yet.
    ///
    /// # Errors
    /// Where it is at the deadline, or once it is known not to come.
    pub(crate) fn enter_until(&self, deadline: Instant) -> Result<Inside<'_, T>, Stage> {
        loop {
            match self.enter() {
                Err(Stage::Awaited) => {}
                entered => return entered,
            }
            let mut stage = locked(&self.stage);
            while *stage == Stage::Awaited {
                let is_late;
                (stage, is_late) = wait_until(&self.told, stage, deadline);
                if is_late && *stage == Stage::Awaited {
                    return Err(Stage::Awaited);
                }
            }
        }
    }

    /// Brings what `make` makes, unless it is here already.
    ///
    /// # Errors
    /// Those of `make`; then all is as it was.
    pub(crate) fn open<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<(), E> {
        let _change = locked(&self.change);
        if self.stage() == Stage::Here {
            return Ok(());
        }
        let made = make()?;
        for lane in &self.lanes {
            *written(lane) = Some(made.clone());
        }
        self.tell(Stage::Here);
        Ok(())
    }

    /// Gives it away, if it is here: `prepare` runs beside requests, `close` when all have ended and no
    /// copy is left but its own.
    ///
    /// # Errors
    /// Those of `prepare`, and it stays; those of `close`, and it is lost.
    pub(crate) fn shut<E>(
        &self,
        prepare: impl FnOnce(&T) -> Result<(), E>,
        close: impl FnOnce(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let _change = locked(&self.change);
        let Ok(inside) = self.enter() else { return Ok(()) };
        prepare(&inside)?;
        drop(inside);
        self.tell(Stage::Gone);
        let mut taken = None;
        for lane in &self.lanes {
            taken = written(lane).take();
        }
        let closed = taken.map_or(Ok(()), close);
        if closed.is_err() {
            self.tell(Stage::Lost);
        }
        closed
    }

    /// Says that it does not come any more, if it has not come.
    pub(crate) fn give_up(&self) {
        let _change = locked(&self.change);
        if self.stage() == Stage::Awaited {
            self.tell(Stage::Gone);
        }
    }

    /// Sets the stage and wakes those who wait, in one step.
    fn tell(&self, stage: Stage) {
        let mut now = locked(&self.stage);
        *now = stage;
        self.told.notify_all();
    }
}

impl<T> fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&*locked(&self.stage)).finish()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn written<T>(lane: &Lane<T>) -> RwLockWriteGuard<'_, Option<T>> {
    lane.0.write().unwrap_or_else(PoisonError::into_inner)
}
