//! Frontends that come, go and stop their queues: what was taken is given back, whatever they do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use vhost::VhostBackend as _;
use vhost::vhost_user::VhostUserFrontend as _;

use super::Running;
use super::machine::{Ask, Board, Machine, is_set};
use crate::client::qed_disk;
use crate::hooked::disk_that_stalls;

const ALL: u64 = u64::MAX;

#[test]
fn a_queue_is_stopped_when_what_was_taken_is_given_back() {
    let (disk, stall) = disk_that_stalls(65536);
    let running = Running::start(disk);
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let sent = {
        let queue = &mut machine.board.queues[0];
        queue.set_used_event(0);
        let sent = queue.send(Ask::write(0, &[5; 65536]));
        queue.kick();
        sent
    };
    stall.wait_until_reached();
    let is_stopped = AtomicBool::new(false);
    let Machine { frontend, board, .. } = &mut machine;
    let base = scope(|scope| {
        let stopping = scope.spawn(|| {
            let base = frontend.get_vring_base(0).expect("a base");
            is_stopped.store(true, Ordering::SeqCst);
            base
        });
        assert!(!is_stopped.load(Ordering::SeqCst), "the request is with the disk still");
        assert_eq!(board.queues[0].used_index(), 0);
        stall.let_go();
        stopping.join().expect("no panic")
    });
    assert_eq!(base, 1);
    assert_eq!(board.queues[0].used_index(), 1);
    assert_eq!(board.queues[0].got(sent).status, 0);
    // Nothing is served before it begins anew.
    board.queues[0].set_used_event(1);
    let sent = board.queues[0].send(Ask::read(0, 512));
    board.queues[0].kick();
    frontend.get_features().expect("the session goes on");
    assert_eq!(board.queues[0].used_index(), 1);
    machine.start_queue(0, None);
    machine.board.queues[0].wait_for(2);
    assert_eq!(machine.board.queues[0].got(sent).data, [5; 512]);
    running.end();
}

#[test]
fn a_queue_that_is_disabled_serves_nothing_until_it_is_enabled() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    machine.frontend.set_vring_enable(0, false).expect("disabled");
    let sent = machine.board.queues[0].send(Ask::ID);
    machine.board.queues[0].kick();
    machine.frontend.get_features().expect("the session goes on");
    assert_eq!(machine.board.queues[0].used_index(), 0);
    machine.frontend.set_vring_enable(0, true).expect("enabled");
    machine.board.queues[0].wait_for(1);
    assert_eq!(machine.board.queues[0].got(sent).status, 0);
    running.end();
}

#[test]
fn frontends_come_one_after_the_other_and_wait_for_their_turn() {
    let running = Running::start(qed_disk());
    let mut first = Board::new(1, 128).plug(&running.path, ALL);
    first.ask(Ask::write(1, &[7; 512]));
    scope(|scope| {
        let path = &running.path;
        let second = scope.spawn(move || {
            let mut second = Board::new(2, 64).plug(path, ALL);
            second.ask(Ask::read(1, 512)).data
        });
        // The first is served while the second waits.
        assert_eq!(first.ask(Ask::read(1, 512)).data, [7; 512]);
        drop(first.unplug());
        assert_eq!(second.join().expect("no panic"), [7; 512]);
    });
    running.end();
}

#[test]
fn a_frontend_that_dies_gets_back_what_was_taken() {
    let (disk, stall) = disk_that_stalls(65536);
    let running = Running::start(disk);
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let queue = &mut machine.board.queues[0];
    queue.set_used_event(0);
    let write = queue.send(Ask::write(0, &[5; 65536]));
    let read = queue.send(Ask::read(0, 512));
    queue.kick();
    stall.wait_until_reached();
    let board = machine.unplug();
    stall.let_go();
    // Its memory is still shared: the requests come back there, by the old session or by the new.
    board.queues[0].set_used_event(1);
    let mut machine = board.plug(&running.path, ALL);
    let queue = &mut machine.board.queues[0];
    queue.wait_for(2);
    assert_eq!(queue.got(write).status, 0);
    assert_eq!(queue.got(read).data, [5; 512]);
    running.end();
}

#[test]
fn a_reset_device_begins_as_a_new_one() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(2, 128).plug(&running.path, ALL);
    machine.ask(Ask::write(0, &[3; 512]));
    machine.frontend.reset_device().expect("reset");
    let sent = machine.board.queues[0].send(Ask::ID);
    machine.board.queues[0].kick();
    machine.frontend.get_features().expect("the session goes on");
    assert_eq!(machine.board.queues[0].used_index(), 1, "{sent:?} is not served");
    // As a driver does after a boot.
    machine.board.queues.iter_mut().for_each(super::machine::Queue::reset);
    machine.frontend.set_features(machine.features).expect("taken");
    machine.start();
    assert_eq!(machine.ask(Ask::read(0, 512)).data, [3; 512]);
    running.end();
}

#[test]
fn memory_comes_and_goes_while_queues_run() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    machine.ask(Ask::write(0, &[3; 512]));
    // What the ring lies in goes: the queue stands still, and goes on when it is there again.
    let region = machine.board.region();
    machine.frontend.remove_mem_region(&region).expect_err("a queue is not in memory any more");
    machine.frontend.remove_mem_region(&region).expect_err("there is no such region");
    machine.frontend.add_mem_region(&region).expect("it is there again");
    assert_eq!(machine.ask(Ask::read(0, 512)).data, [3; 512]);
    machine.frontend.add_mem_region(&region).expect_err("it would overlap");
    machine.frontend.set_mem_table(&[region]).expect("the same again");
    assert_eq!(machine.ask(Ask::read(0, 512)).data, [3; 512]);
    running.end();
}

#[test]
fn a_broken_queue_ends_alone_and_begins_anew() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(2, 128).plug(&running.path, ALL);
    let queue = &mut machine.board.queues[1];
    queue.offer(500);
    queue.kick();
    assert!(is_set(&queue.error), "the frontend is told");
    assert_eq!(machine.ask(Ask::ID).status, 0, "the other queue works");
    machine.frontend.get_vring_base(1).expect("a base");
    machine.board.queues[1].reset();
    machine.start_queue(1, None);
    assert_eq!(machine.board.queues[1].ask(Ask::ID).status, 0);
    running.end();
}

#[test]
fn the_server_ends_while_a_frontend_is_there_and_gives_back_what_it_took() {
    let (disk, stall) = disk_that_stalls(65536);
    let running = Running::start(disk);
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let queue = &mut machine.board.queues[0];
    let sent = queue.send(Ask::write(0, &[5; 65536]));
    queue.kick();
    stall.wait_until_reached();
    running.stop.stop();
    stall.let_go();
    running.end();
    assert_eq!(machine.board.queues[0].got(sent).status, 0);
}
