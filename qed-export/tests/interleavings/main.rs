//! The gate of a hand-over, compiled with the types of a model checker, which runs its threads in
//! thousands of orders of their steps.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod sync;

#[path = "../../src/hand_over/gate.rs"]
mod gate;

use std::convert::Infallible;
use std::time::Instant;

use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::{check_pct, check_random, thread};

use gate::{Gate, Stage};

/// Orders that each test goes through in each of two ways of drawing them.
const ORDERS: usize = 5_000;

/// Runs `test` in many orders; a panic in one of them, or threads that all wait, fail.
fn in_many_orders(test: fn()) {
    check_random(test, ORDERS);
    check_pct(test, ORDERS, 3);
}

/// What is handed over: how many use it, and whether it is closed.
#[derive(Debug, Default)]
struct Disk {
    users: AtomicU64,
    closed: AtomicU64,
}

impl Disk {
    fn use_it(&self) {
        assert_eq!(self.closed.load(Ordering::SeqCst), 0, "a request uses a closed disk");
        self.users.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.closed.load(Ordering::SeqCst), 0, "a disk is closed under a request");
        self.users.fetch_sub(1, Ordering::SeqCst);
    }
}

type Disks = Gate<Arc<Disk>>;

fn open(gate: &Disks) {
    gate.open(|| Ok::<_, Infallible>(Arc::default())).unwrap();
}

fn shut(gate: &Disks) {
    let close = |disk: Arc<Disk>| {
        assert_eq!(disk.users.load(Ordering::SeqCst), 0, "it is closed under a request");
        assert_eq!(Arc::strong_count(&disk), 1, "somebody keeps it open");
        disk.closed.store(1, Ordering::SeqCst);
        Ok::<_, Infallible>(())
    };
    let prepare = |disk: &Arc<Disk>| {
        disk.use_it();
        Ok(())
    };
    gate.shut(prepare, close).unwrap();
}

fn joined<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

// spec-test: QED-HAND-04
#[test]
fn nothing_is_closed_under_a_request_and_none_begins_after() {
    in_many_orders(|| {
        let gate = Arc::new(Disks::new());
        open(&gate);
        let requests = [0, 1].map(|_| {
            let gate = gate.clone();
            thread::spawn(move || match gate.enter() {
                Ok(disk) => disk.use_it(),
                Err(stage) => assert_eq!(stage, Stage::Gone),
            })
        });
        let ends = [0, 1].map(|_| {
            let gate = gate.clone();
            thread::spawn(move || shut(&gate))
        });
        joined(requests);
        joined(ends);
        assert_eq!(gate.stage(), Stage::Gone);
        assert!(gate.enter().is_err());
    });
}

// spec-test: QED-HAND-01
#[test]
fn whoever_waits_is_woken_when_it_comes() {
    in_many_orders(|| {
        let gate = Arc::new(Disks::new());
        let waits = [0, 1].map(|_| {
            let gate = gate.clone();
            thread::spawn(move || gate.enter_until(Instant::now()).unwrap().use_it())
        });
        let opener = gate.clone();
        joined([thread::spawn(move || open(&opener))]);
        joined(waits);
    });
}

#[test]
fn whoever_waits_is_woken_when_it_does_not_come() {
    in_many_orders(|| {
        let gate = Arc::new(Disks::new());
        let waits = [0, 1].map(|_| {
            let gate = gate.clone();
            thread::spawn(move || match gate.enter_until(Instant::now()) {
                Ok(disk) => disk.use_it(),
                Err(stage) => assert_eq!(stage, Stage::Gone),
            })
        });
        let changes = [open, |gate: &Disks| gate.give_up()].map(|change| {
            let gate = gate.clone();
            thread::spawn(move || change(&gate))
        });
        joined(changes);
        joined(waits);
    });
}

#[test]
fn it_comes_and_goes_beside_requests_that_wait() {
    in_many_orders(|| {
        let gate = Arc::new(Disks::new());
        let waits = [0, 1].map(|_| {
            let gate = gate.clone();
            thread::spawn(move || match gate.enter_until(Instant::now()) {
                Ok(disk) => disk.use_it(),
                Err(stage) => assert_eq!(stage, Stage::Gone),
            })
        });
        let change = gate.clone();
        let change = thread::spawn(move || {
            open(&change);
            shut(&change);
            open(&change);
            shut(&change);
            assert_eq!(change.settled_stage(), Stage::Gone);
        });
        joined([change]);
        joined(waits);
    });
}
