//! Storages for tests: each wraps another one and watches or disturbs what is asked of it.
//!
//! Owns what the three share. They are deterministic: nothing here draws a number or reads a clock
//! to decide what happens, so a test that numbers its operations can be repeated exactly.

mod faulty;
mod forward;
mod gate;
mod recorder;
mod request;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use faulty::{Fault, Faulty, Repeat};
pub use gate::{Gate, HeldRequest};
pub use recorder::{Completion, Operation, Outcome, Record, Recorder};
pub use request::{Request, RequestKind};

/// A test that panics on one thread must not hide behind a poisoned lock on another.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
