//! Space on its way from a name to the next owner: in limbo after its entry is published anew, taken by a
//! flush before that copies the entries, free when the flush is durable and nobody may use it any more.

use std::ops::Range;

use shuttle::thread;

use crate::in_many_orders;
use crate::options::DiscardMode;
use crate::space::free::FreeSpace;
use crate::space::guards::Drain;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

const CLUSTER: u64 = 5;
const RUN: Range<u64> = CLUSTER..CLUSTER + 1;

struct Image {
    free: FreeSpace,
    guards: Drain,
    /// In memory and in the file: the cluster, or 0.
    entry: AtomicU64,
    stored: AtomicU64,
    /// Whether another has the cluster.
    is_reused: AtomicU64,
    /// Held while a flush writes.
    turn: Mutex<()>,
}

impl Image {
    fn new() -> Arc<Self> {
        let free = FreeSpace::new();
        // A sweep has found the tables sound.
        free.end_sweep(std::iter::empty(), true, DiscardMode::Reuse);
        let [entry, stored] = [CLUSTER, CLUSTER].map(AtomicU64::new);
        let (guards, is_reused, turn) = (Drain::default(), AtomicU64::new(0), Mutex::new(()));
        Arc::new(Self { free, guards, entry, stored, is_reused, turn })
    }

    /// As `Change::publish_over`.
    fn discard(&self) {
        let _request = self.guards.enter();
        self.free.let_go(&[RUN]);
        self.entry.store(0, Ordering::SeqCst);
        self.free.is_let_go(&[RUN]);
    }

    /// As `Pending::take` and what follows it. It is durable, or does not get to the file.
    fn flush(&self, is_written: bool) {
        let turn = self.turn.lock().unwrap();
        let taken = self.free.take_limbo();
        let copy = self.entry.load(Ordering::SeqCst);
        if is_written {
            self.stored.store(copy, Ordering::SeqCst);
            self.free.is_durable(taken, self.guards.moment());
        } else {
            self.free.put_back(&taken);
        }
        drop(turn);
        self.free.settle(&self.guards, DiscardMode::Reuse);
    }

    fn read(&self) {
        let _request = self.guards.enter();
        if self.entry.load(Ordering::SeqCst) == CLUSTER {
            let is_reused = self.is_reused.load(Ordering::SeqCst);
            assert_eq!(is_reused, 0, "a reader sees what another wrote");
        }
    }

    fn reuse(&self) {
        if let Some(run) = self.free.take(1) {
            assert_eq!((run.first.get(), run.count, run.fresh), (CLUSTER, 1, false));
            assert_eq!(self.stored.load(Ordering::SeqCst), 0, "a crash would bring the name back");
            let owners = self.is_reused.fetch_add(1, Ordering::SeqCst);
            assert_eq!(owners, 0, "it is free twice");
        }
    }
}

// spec-test: QED-FREE-02, QED-FREE-03
#[test]
fn space_is_used_again_when_its_un_naming_is_durable() {
    in_many_orders(|| {
        let image = Image::new();
        let acts: [fn(&Image); 5] = [
            Image::discard,
            |image| {
                image.flush(false);
                image.flush(true);
            },
            |image| image.flush(true),
            |image| (0..2).for_each(|_| image.reuse()),
            Image::read,
        ];
        let threads = acts.map(|act| {
            let image = Arc::clone(&image);
            thread::spawn(move || act(&image))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // Nothing is lost on the way.
        image.flush(true);
        image.reuse();
        assert_eq!(image.is_reused.load(Ordering::SeqCst), 1, "it is not free");
        assert!(!image.free.is_any_away());
    });
}
