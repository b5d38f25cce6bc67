//! One data write is held up in the storage; what others can do meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::Scope;
use std::time::Duration;

use qed_core::{GivenBacking, Image, RefuseBacking};
use qed_io::{Gate, RequestKind};
use qed_spec::GuestOffset;

use crate::support::{Bytes, new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 8 << 20;

/// What need not wait for a stalled write ends by itself long before.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does `work` on a thread of its own; fails if it does not end while the caller holds a write up.
fn finishes<'scope>(
    scope: &'scope Scope<'scope, '_>,
    what: &str,
    work: impl FnOnce() + Send + 'scope,
) {
    let (done, end) = mpsc::channel();
    scope.spawn(move || {
        work();
        done.send(())
    });
    assert!(end.recv_timeout(PATIENCE).is_ok(), "{what}: waits for the stalled write");
}

fn write(image: &Image, byte: u8, at: u64) {
    image.write_at(&[byte; 512], GuestOffset::new(at)).unwrap();
}

fn sector(image: &Image, at: u64) -> [u8; 512] {
    let mut sector = [9; 512];
    image.read_at(&mut sector, GuestOffset::new(at)).unwrap();
    sector
}

#[test]
fn other_clusters_of_the_same_table_are_written_read_and_flushed_meanwhile() {
    for before in [0, 7] {
        let backing =
            GivenBacking((before > 0).then(|| Arc::new(Bytes(vec![before; 1 << 20])) as _));
        let storage = new_storage(small_geometry(), DISK, backing.0.is_some());
        let gate = Arc::new(Gate::new(storage));
        let image = open(gate.clone(), &backing);
        write(&image, 1, 0);
        let held = gate.hold(|request| request.kind == RequestKind::Write);
        std::thread::scope(|scope| {
            let image = &image;
            let stalled = scope.spawn(move || write(image, 2, CLUSTER));
            held.wait_until_stopped();
            finishes(scope, "a write to a new cluster", move || write(image, 3, 2 * CLUSTER));
            finishes(scope, "a write in place", move || write(image, 4, 512));
            finishes(scope, "a flush", move || image.flush().unwrap());
            finishes(scope, "a read", move || {
                assert_eq!(sector(image, CLUSTER), [before; 512], "not there before its data is");
            });
            held.release();
            stalled.join().unwrap();
            assert_eq!(sector(image, CLUSTER), [2; 512]);
        });
        image.close().unwrap();
    }
}

#[test]
fn a_second_write_to_the_same_new_cluster_waits_and_shares_it() {
    let gate = Arc::new(Gate::new(new_storage(small_geometry(), DISK, false)));
    let image = open(gate.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    let held = gate.hold(|request| request.kind == RequestKind::Write);
    let second_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| image.write_at(&[2; 512], GuestOffset::new(CLUSTER)));
        held.wait_until_stopped();
        let second = scope.spawn(|| {
            image.write_at(&[3; 512], GuestOffset::new(CLUSTER + 512)).unwrap();
            second_done.store(true, Ordering::Release);
        });
        // It may not have started yet, but it must not finish however long it has.
        for _ in 0..1000 {
            std::thread::yield_now();
            assert!(!second_done.load(Ordering::Acquire));
        }
        held.release();
        first.join().unwrap().unwrap();
        second.join().unwrap();
    });
    let mut both = [0; 1024];
    image.read_at(&mut both, GuestOffset::new(CLUSTER)).unwrap();
    assert!(both[..512] == [2; 512] && both[512..] == [3; 512]);
    image.close().unwrap();
}
