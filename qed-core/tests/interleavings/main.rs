//! The modules of qed-core that take no lock where others would, compiled with the types of a model
//! checker, which runs their threads in thousands of orders of their steps.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed unwrap is a failed test, and the numbers are small"
)]

mod flushes;
mod sync;

mod error {
    pub(crate) use qed_core::CorruptTable;
}

mod options {
    pub(crate) use qed_core::DiscardMode;
}

mod space {
    #[path = "../../../src/space/free.rs"]
    #[expect(dead_code, reason = "compiled whole")]
    pub(crate) mod free;
    #[path = "../../../src/space/guards.rs"]
    pub(crate) mod guards;
    #[path = "../../../src/space/host_set.rs"]
    pub(crate) mod host_set;
    mod limbo;
}

#[path = "../../../qed-pending/src/ring.rs"]
#[expect(dead_code, reason = "compiled whole")]
mod ring;

/// As qed-core has them, with a smaller slice.
mod map {
    #[path = "../../../src/map/cache.rs"]
    #[expect(dead_code, reason = "compiled whole")]
    pub(crate) mod cache;
    #[path = "../../../src/map/index.rs"]
    pub(crate) mod index;
    pub(crate) mod slice;
}

use std::fmt::Debug;

use shuttle::sync::RwLock;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::{check_pct, check_random, thread};

use map::index::{Index, Numbered};
use space::guards::Drain;
use sync::Arc;

/// Orders that each test goes through in each of two ways of drawing them.
const ORDERS: usize = 20_000;

/// Runs `test` in many orders; a panic in one of them, or threads that all wait, fail.
fn in_many_orders(test: fn()) {
    check_random(test, ORDERS);
    check_pct(test, ORDERS, 3);
}

/// A request looks a cluster up and uses it; meanwhile the cluster loses its name, and when the moment
/// of that has passed it is used for another.
#[test]
fn space_is_used_again_when_those_that_found_it_have_ended() {
    in_many_orders(|| {
        let drain = Arc::new(Drain::default());
        // The entry of the guest cluster, and whose bytes the two clusters hold.
        let entry = Arc::new(AtomicU64::new(0));
        let owner = Arc::new([0, 0].map(AtomicU64::new));
        let requests = [0, 1].map(|_| {
            let (drain, entry, owner) = (drain.clone(), entry.clone(), owner.clone());
            thread::spawn(move || {
                let request = drain.enter();
                let found = entry.load(Ordering::SeqCst) as usize;
                let part = request.again();
                drop(request);
                assert_eq!(owner[found].load(Ordering::SeqCst), 0, "it was given to another");
                drop(part);
            })
        });
        // Two wait for moments of their own, as reclaiming and a sweep do.
        let waits = [true, false].map(|moves| {
            let (drain, entry, owner) = (drain.clone(), entry.clone(), owner.clone());
            thread::spawn(move || {
                if moves {
                    entry.store(1, Ordering::SeqCst);
                }
                let moment = drain.moment();
                while !drain.has_passed(moment) {
                    thread::yield_now();
                }
                if moves {
                    owner[0].store(1, Ordering::SeqCst);
                }
            })
        });
        requests.into_iter().chain(waits).for_each(|thread| thread.join().unwrap());
        assert!(!drain.any(), "requests that ended are counted");
    });
}

#[test]
fn no_request_runs_beside_a_change_and_nobody_waits_for_ever() {
    in_many_orders(|| {
        let (drain, shape) = (Arc::new(Drain::default()), Arc::new(AtomicU64::new(0)));
        let requests = [0, 1].map(|_| {
            let (drain, shape) = (Arc::clone(&drain), Arc::clone(&shape));
            thread::spawn(move || {
                let request = drain.enter();
                let before = shape.load(Ordering::SeqCst);
                assert_eq!(before % 2, 0, "a change is half done");
                assert_eq!(shape.load(Ordering::SeqCst), before, "a change began beside a request");
                // A part of the request goes on after it, perhaps in another thread.
                let part = request.again();
                drop(request);
                assert_eq!(shape.load(Ordering::SeqCst), before, "a change began beside a part");
                drop(part);
            })
        });
        let changes = [0, 1].map(|_| {
            let (drain, shape) = (Arc::clone(&drain), Arc::clone(&shape));
            thread::spawn(move || {
                let drained = drain.drain();
                shape.fetch_add(1, Ordering::SeqCst);
                shape.fetch_add(1, Ordering::SeqCst);
                drop(drained);
            })
        });
        requests.into_iter().chain(changes).for_each(|thread| thread.join().unwrap());
        assert_eq!(shape.load(Ordering::SeqCst), 4);
        assert!(!drain.is_shared(), "requests that ended are counted");
    });
}

/// A number whose place in the smallest front is that of 0.
const OTHER: u64 = 64;

/// One shard that holds one value at a time, a front over it, and what evicted values leave.
#[derive(Debug)]
struct Cache {
    front: Index<AtomicU64>,
    shard: RwLock<Option<Arc<Numbered<AtomicU64>>>>,
    stored: [AtomicU64; 2],
}

impl Cache {
    /// As the cache looks: at the front, else in the shard, which is shown from then on.
    fn look(&self, number: u64) -> u64 {
        let value = |value: &AtomicU64| value.load(Ordering::SeqCst);
        loop {
            if let Some(found) = self.front.look(number, value) {
                return found;
            }
            let shard = self.shard.read().unwrap();
            if let Some(cached) = shard.as_ref().filter(|cached| cached.number == number) {
                self.front.publish(cached);
                return value(&cached.value);
            }
            drop(shard);
            self.load(number);
        }
    }

    /// Evicts what is there, and loads another.
    fn load(&self, number: u64) {
        let mut shard = self.shard.write().unwrap();
        if let Some(cached) = shard.take() {
            self.front.unpublish(cached.number);
            let last = cached.value.load(Ordering::SeqCst);
            self.stored(cached.number).store(last, Ordering::SeqCst);
        }
        let value = AtomicU64::new(self.stored(number).load(Ordering::SeqCst));
        *shard = Some(Arc::new(Numbered { number, value }));
    }

    fn publish(&self, number: u64, new: u64) {
        loop {
            let shard = self.shard.read().unwrap();
            if let Some(cached) = shard.as_ref().filter(|cached| cached.number == number) {
                return cached.value.store(new, Ordering::SeqCst);
            }
            drop(shard);
            self.load(number);
        }
    }

    fn stored(&self, number: u64) -> &AtomicU64 {
        &self.stored[usize::try_from(number / OTHER).unwrap()]
    }
}

#[test]
fn a_lookup_finds_what_was_published_before_it_began() {
    in_many_orders(|| {
        let cache = Arc::new(Cache {
            front: Index::new(1),
            shard: RwLock::new(None),
            stored: [0, 0].map(AtomicU64::new),
        });
        let published = Arc::new(AtomicU64::new(0));
        let writer = {
            let (cache, published) = (Arc::clone(&cache), Arc::clone(&published));
            thread::spawn(move || {
                for new in 1..=2 {
                    cache.publish(0, new);
                    published.store(new, Ordering::SeqCst);
                }
            })
        };
        let reader = {
            let (cache, published) = (Arc::clone(&cache), Arc::clone(&published));
            thread::spawn(move || {
                for _ in 0..2 {
                    let at_least = published.load(Ordering::SeqCst);
                    assert!(cache.look(0) >= at_least, "an evicted value was shown");
                }
            })
        };
        // Another value takes the place of the first, as often.
        let other = thread::spawn(move || (0..2).for_each(|_| assert_eq!(cache.look(OTHER), 0)));
        [writer, reader, other].into_iter().for_each(|thread| thread.join().unwrap());
    });
}
