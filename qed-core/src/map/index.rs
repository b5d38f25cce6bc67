//! Where lookups find a slice without a lock: one place for each remainder of slice numbers, which
//! publishes one slice of the cache or none.
//!
//! The shards of the cache say what is cached; this only points at it. A place is changed by the thread that
//! holds the shard of its number: shared to publish what is in the shard, alone to take it away. All
//! numbers of one place belong to one shard. So what is published is in the shard, and a lookup that
//! begins after a slice was evicted does not find it. `tests/interleavings` goes through the orders.

use std::sync::OnceLock;

use crate::sync::{Arc, ArcSwapOption};

/// A value and the number it is known by, in this order: a lookup reads both.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Numbered<T> {
    pub(crate) number: u64,
    pub(crate) value: T,
}

#[derive(Debug)]
pub(crate) struct Index<T> {
    /// Made when a place of theirs is first used: most images are opened for a few slices.
    groups: Box<[OnceLock<Box<Group<T>>>]>,
}

const GROUP: usize = 64;

type Place<T> = ArcSwapOption<Numbered<T>>;
type Group<T> = [Place<T>; GROUP];

impl<T> Index<T> {
    /// An index of at least so many places, a power of two.
    pub(crate) fn new(places: usize) -> Self {
        let groups = places.div_ceil(GROUP).next_power_of_two();
        Self { groups: (0..groups).map(|_| OnceLock::new()).collect() }
    }

    /// Looks at the value of this number, if it is published.
    #[inline]
    pub(crate) fn look<R>(&self, number: u64, look: impl FnOnce(&T) -> R) -> Option<R> {
        let (group, place) = self.place(number);
        let shown = group.get()?[place].load();
        let shown = shown.as_ref().filter(|shown| shown.number == number)?;
        Some(look(&shown.value))
    }

    /// Shows a value of the cache from now on. The caller holds its shard shared.
    pub(crate) fn publish(&self, value: &Arc<Numbered<T>>) {
        let (group, place) = self.place(value.number);
        let group = group.get_or_init(|| Box::new(std::array::from_fn(|_| Place::empty())));
        group[place].store(Some(Arc::clone(value)));
    }

    /// Shows the value of this number no more. The caller holds its shard alone.
    pub(crate) fn unpublish(&self, number: u64) {
        let (group, place) = self.place(number);
        if self.look(number, |_| ()).is_some()
            && let Some(group) = group.get()
        {
            group[place].store(None);
        }
    }

    /// The group of a number, and its place in there.
    fn place(&self, number: u64) -> (&OnceLock<Box<Group<T>>>, usize) {
        let place = number & ((self.groups.len() * GROUP) as u64 - 1);
        let place = usize::try_from(place).expect("below the number of places");
        (&self.groups[place / GROUP], place % GROUP)
    }
}
