//! Who may use the disk: many requests at once, or one alone, until the gate is shut for good. Knows no
//! disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The gate that each request goes through.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_shut: RwLock<bool>,
    /// Those inside are to finish early.
    is_closing: AtomicBool,
}

/// The gate is shut: the disk may be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shut;

/// One of several that are inside.
#[derive(Debug)]
pub(super) struct Entered<'g>(#[expect(dead_code, reason = "held")] RwLockReadGuard<'g, bool>);

/// Who is inside alone.
#[derive(Debug)]
pub(super) struct Alone<'g>(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'g, bool>);

impl Gate {
    /// Goes inside beside others.
    pub(super) fn enter(&self) -> Result<Entered<'_>, Shut> {
        // A request that panicked changed nothing here.
        let is_shut = self.is_shut.read().unwrap_or_else(PoisonError::into_inner);
        if *is_shut { Err(Shut) } else { Ok(Entered(is_shut)) }
    }

    /// Goes inside when nobody else is there.
    pub(super) fn enter_alone(&self) -> Result<Alone<'_>, Shut> {
        let is_shut = self.is_shut.write().unwrap_or_else(PoisonError::into_inner);
        if *is_shut { Err(Shut) } else { Ok(Alone(is_shut)) }
    }

    /// Whether those inside are to finish early.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Lets nobody in any more, and waits for those inside.
    pub(super) fn shut(&self) {
        self.is_closing.store(true, Ordering::Release);
        *self.is_shut.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_enters_once_it_is_shut() {
        let gate = Gate::default();
        let (one, other) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert!(!gate.is_closing());
        drop((one, other));
        drop(gate.enter_alone().unwrap());
        gate.shut();
        assert!(gate.is_closing());
        assert_eq!(gate.enter().err(), Some(Shut));
        assert_eq!(gate.enter_alone().err(), Some(Shut));
    }
}
