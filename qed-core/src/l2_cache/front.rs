//! Where lookups find a slice without a lock: one place for each remainder of slice numbers, which
//! shows one slice of the cache or none.
//!
//! The shards of the cache say what is cached; this only points at it. A place is changed by who
//! holds the shard of its number: shared to show what is in the shard, alone to take it away. All
//! numbers of one place belong to one shard. So what is shown is in the shard, and a lookup that
//! begins after a slice was evicted does not find it. `tests/interleavings` goes through the orders.

use crate::sync::{Arc, ArcSwapOption};

/// A value and the number it is known by, in this order: a lookup reads both.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Numbered<T> {
    pub(crate) number: u64,
    pub(crate) value: T,
}

#[derive(Debug)]
pub(crate) struct Front<T> {
    places: Box<[ArcSwapOption<Numbered<T>>]>,
}

impl<T> Front<T> {
    /// A front of so many places.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// Looks at the value of this number, if it is shown.
    pub(crate) fn look<R>(&self, number: u64, look: impl FnOnce(&T) -> R) -> Option<R> {
        let shown = self.place(number).load();
        let shown = shown.as_ref().filter(|shown| shown.number == number)?;
        Some(look(&shown.value))
    }

    /// Shows a value of the cache from now on. The caller holds its shard shared.
    pub(crate) fn show(&self, value: &Arc<Numbered<T>>) {
        self.place(value.number).store(Some(Arc::clone(value)));
    }

    /// Shows the value of this number no more. The caller holds its shard alone.
    pub(crate) fn hide(&self, number: u64) {
        let place = self.place(number);
        if self.look(number, |_| ()).is_some() {
            place.store(None);
        }
    }

    fn place(&self, number: u64) -> &ArcSwapOption<Numbered<T>> {
        let place = number % self.places.len() as u64;
        &self.places[usize::try_from(place).expect("below the number of places")]
    }
}
