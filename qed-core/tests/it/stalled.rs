//! One data write is held up in the storage; what others can do meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qed_core::RefuseBacking;
use qed_io::{Gate, RequestKind};
use qed_spec::GuestOffset;

use crate::support::{new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 8 << 20;

#[test]
fn other_clusters_of_the_same_table_are_written_read_and_flushed_meanwhile() {
    let gate = Arc::new(Gate::new(new_storage(small_geometry(), DISK, false)));
    let image = open(gate.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    let held = gate.hold(|request| request.kind == RequestKind::Write);
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| image.write_at(&[2; 512], GuestOffset::new(CLUSTER)));
        held.wait_until_stopped();
        image.write_at(&[3; 512], GuestOffset::new(2 * CLUSTER)).unwrap();
        image.write_at(&[4; 512], GuestOffset::new(512)).unwrap();
        image.flush().unwrap();
        let mut sector = [9; 512];
        image.read_at(&mut sector, GuestOffset::new(CLUSTER)).unwrap();
        assert_eq!(sector, [0; 512], "not there before its data is");
        held.release();
        stalled.join().unwrap().unwrap();
        image.read_at(&mut sector, GuestOffset::new(CLUSTER)).unwrap();
        assert_eq!(sector, [2; 512]);
    });
    image.close().unwrap();
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
