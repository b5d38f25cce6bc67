//! `qed vhost` as a process that is killed, and that serves for long: no request is lost, and nothing grows.

#[path = "../../../qed-export/tests/it/vhost/machine.rs"]
#[allow(dead_code, reason = "this program uses a part of the machine")]
mod machine;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use machine::{Ask, Board, EVENT_INDEX, Machine, Sent};

use crate::lab::Lab;
use crate::serve::Served;

/// Without an event index every request that comes back interrupts.
const FEATURES: u64 = !EVENT_INDEX;
const PAGE: usize = 4096;
/// As many as the driver keeps apart.
const AT_ONCE: u64 = 32;

fn served(lab: &Lab, cache: &str) -> Served {
    let args = ["vhost", "--socket", "s", "--queues", "2", "-t", cache, "-f", "qed", "a.qed"];
    Served::of(&mut lab.command(args), 1)
}

/// What a round writes at a place.
fn content(round: u64, index: u64) -> [u8; PAGE] {
    let byte = round.wrapping_mul(31).wrapping_add(index).to_le_bytes()[0];
    [byte; PAGE]
}

fn sector(round: u64, index: u64) -> u64 {
    (round * AT_ONCE + index) * 8
}

fn send_writes(machine: &mut Machine, round: u64) -> Vec<Sent> {
    let queue = &mut machine.board.queues[0];
    let write = |index| queue.send(Ask::write(sector(round, index), &content(round, index)));
    let sent = (0..AT_ONCE).map(write).collect();
    queue.kick();
    sent
}

#[test]
fn a_server_that_is_killed_and_started_anew_loses_no_request() {
    loses_no_request("writeback");
}

/// Where requests come back in the order in which the disk ends them.
#[test]
fn a_server_that_is_killed_with_many_in_flight_loses_no_request() {
    loses_no_request("none");
}

fn loses_no_request(cache: &str) {
    const ROUNDS: u64 = 12;
    let lab = Lab::new();
    lab.qed(["create", "-f", "qed", "a.qed", "64M"]).succeeded();
    let mut server = served(&lab, cache);
    let mut board = Board::new(1, 128);
    for round in 0..ROUNDS {
        let mut machine = board.plug(&lab.path("s"), FEATURES);
        let sent = send_writes(&mut machine, round);
        // Killed before the first, among the others, and after the last.
        let before = u16::try_from(round * 3).expect("few").min(32);
        machine.board.queues[0].wait_for(before);
        server.signal("KILL");
        server.wait();
        server = served(&lab, cache);
        let mut machine = machine.unplug().plug(&lab.path("s"), FEATURES);
        let queue = &mut machine.board.queues[0];
        queue.wait_for(32 - before);
        assert!(sent.iter().all(|sent| queue.got(*sent).status == 0), "round {round}");
        board = machine.unplug();
    }
    let mut machine = board.plug(&lab.path("s"), FEATURES);
    let mut lost = Vec::new();
    for round in 0..ROUNDS {
        for index in 0..AT_ONCE {
            let got = machine.ask(Ask::read(sector(round, index), 4096));
            let is_there = got.status == 0 && got.data == content(round, index);
            if !is_there {
                lost.push((round, index));
            }
        }
    }
    assert!(lost.is_empty(), "{lost:?}");
    drop(machine);
    server.stop();
    lab.qed(["check", "a.qed"]).succeeded();
}

/// What a process has of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owned {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

impl Owned {
    fn of(process: &Path) -> Self {
        let count = |name: &str| fs::read_dir(process.join(name)).expect("there").count();
        let maps = fs::read_to_string(process.join("maps")).expect("there");
        // Of what frontends share; the program's own comes and goes with its heap.
        let mappings = maps.lines().filter(|line| line.contains("memfd:")).count();
        Self { descriptors: count("fd"), threads: count("task"), mappings }
    }
}

fn resident_kib(process: &Path) -> u64 {
    let status = fs::read_to_string(process.join("status")).expect("there");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("it says so");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn frontends_that_come_and_go_leave_nothing_behind() {
    let lab = Lab::new();
    lab.qed(["create", "-f", "qed", "a.qed", "64M"]).succeeded();
    let server = served(&lab, "writeback");
    let process = Path::new("/proc").join(server.id().to_string());
    let rounds = |count: u64| {
        for round in 0..count {
            let mut machine = Board::new(2, 128).plug(&lab.path("s"), FEATURES);
            send_writes(&mut machine, round % 16);
            machine.board.queues[0].wait_for(32);
            assert_eq!(machine.board.queues[1].ask(Ask::FLUSH).status, 0);
        }
        wait_until_alone(&process)
    };
    let before = rounds(20);
    let resident = resident_kib(&process);
    assert_eq!(rounds(200), before);
    let grown = resident_kib(&process).saturating_sub(resident);
    assert!(grown < 2048, "{grown} KiB more after 200 frontends");
    server.stop();
}

/// What the server has when the last frontend is noticed to be gone.
fn wait_until_alone(process: &Path) -> Owned {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let owned = Owned::of(process);
        if owned.mappings == 0 {
            return Owned::of(process);
        }
        assert!(Instant::now() < deadline, "{owned:?} after the last has gone");
        std::thread::yield_now();
    }
}
