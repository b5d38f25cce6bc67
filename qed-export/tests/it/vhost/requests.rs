//! Requests of a guest: what it asks for, with every way to lay it out, and when it hears of it.

use std::sync::Arc;
use std::thread::scope;

use qed_core::RawFile;
use qed_export::vhost::VhostOptions;
use qed_export::{BlockDevice, ReadOnlyDisk, Shrink};
use qed_io::MemoryStorage;
use vhost::VhostBackend as _;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::vhost_user::{self, VhostUserFrontend as _};

use super::machine::{Ask, Board, EVENT_INDEX, Got, INDIRECT, is_set, segment};
use super::{Counting, Running};
use crate::client::{SIZE, qed_disk, raw_disk};

const ALL: u64 = u64::MAX;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

fn done(written: u32) -> Got {
    Got { status: OK, written, data: vec![] }
}

#[test]
fn a_guest_reads_what_it_wrote_and_gives_up_what_it_does_not_want() {
    let disks: [fn() -> Arc<dyn BlockDevice>; 2] = [qed_disk, raw_disk];
    for disk in disks {
        for features in [ALL, ALL & !EVENT_INDEX, ALL & !INDIRECT] {
            let running = Running::start(disk());
            let mut machine = Board::new(1, 128).plug(&running.path, features);
            for indirect in [false, features & INDIRECT != 0] {
                let bytes: Vec<u8> = (0..4096_u32).map(|at| (at % 251) as u8 + 1).collect();
                let write = Ask { indirect, ..Ask::write(9, &bytes) };
                assert_eq!(machine.ask(write), done(1));
                let read = Ask { indirect, ..Ask::read(8, 8192) };
                let got = machine.ask(read);
                assert_eq!((got.status, got.written), (OK, 8193));
                assert_eq!(got.data[..512], [0; 512]);
                assert_eq!(got.data[512..4608], bytes);
                assert_eq!(got.data[4608..], [0; 8192 - 4608]);
                assert_eq!(machine.ask(Ask::FLUSH), done(1));
                let zero = segment(9, 1, 0);
                assert_eq!(machine.ask(Ask { indirect, ..Ask::zero(&zero) }), done(1));
                let zero = segment(10, 7, 1);
                assert_eq!(machine.ask(Ask { indirect, ..Ask::zero(&zero) }), done(1));
                let got = machine.ask(Ask::read(9, 4096));
                assert_eq!(got.data, vec![0; 4096]);
                let discard = segment(0, 128, 0);
                assert_eq!(machine.ask(Ask { indirect, ..Ask::discard(&discard) }), done(1));
            }
            drop(machine);
            running.end();
        }
    }
}

#[test]
fn a_guest_is_told_what_it_may_not_do() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let end = SIZE / 512;
    let refused = |status| Got { status, written: 1, data: vec![] };
    assert_eq!(machine.ask(Ask::write(end, &[1; 512])), refused(IO_ERROR));
    assert_eq!(machine.ask(Ask::write(end - 1, &[1; 1024])), refused(IO_ERROR));
    assert_eq!(machine.ask(Ask::write(0, &[1; 100])), refused(IO_ERROR));
    assert_eq!(machine.ask(Ask { kind: 99, ..Ask::FLUSH }), refused(UNSUPPORTED));
    assert_eq!(machine.ask(Ask::discard(&segment(0, 8, 1))), refused(UNSUPPORTED));
    assert_eq!(machine.ask(Ask::discard(&segment(end, 8, 0))), refused(IO_ERROR));
    assert_eq!(machine.ask(Ask::zero(&segment(0, 8, 2))), refused(UNSUPPORTED));
    assert_eq!(machine.ask(Ask::read(u64::MAX, 512)).status, IO_ERROR);
    assert_eq!(running.counters.snapshot().refused, 8);
    running.end();
}

#[test]
fn a_guest_sees_the_serial_number_and_what_the_disk_is_like() {
    let options =
        VhostOptions { queues: 3, queue_size: 64, serial: "0123456789abcdefghijklm".to_owned() };
    let running = Running::with(qed_disk(), options);
    let mut machine = Board::new(1, 64).plug(&running.path, ALL);
    assert_eq!(machine.ask(Ask::ID).data, b"0123456789abcdefghij");
    assert_eq!(machine.sectors(), SIZE / 512);
    let config = machine.config(0, 60);
    assert_eq!(config[12..16], 62_u32.to_le_bytes(), "two of the queue are head and status");
    assert_eq!(config[32..36], [1, 0, 3, 0], "a write cache that is on, and three queues");
    assert_eq!(machine.frontend.get_queue_num().expect("a number"), 3);
    assert_eq!(machine.frontend.get_max_mem_slots().expect("a number"), 509);
    running.end();
}

#[test]
fn what_the_protocol_offers_is_what_is_built() {
    use VhostUserProtocolFeatures as P;
    let running = Running::start(qed_disk());
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let offered = machine.frontend.get_protocol_features().expect("features");
    let all = P::MQ
        | P::LOG_SHMFD
        | P::REPLY_ACK
        | P::BACKEND_REQ
        | P::CONFIG
        | P::INFLIGHT_SHMFD
        | P::RESET_DEVICE
        | P::CONFIGURE_MEM_SLOTS
        | P::STATUS;
    assert_eq!(offered, all);
    running.end();
}

#[test]
fn a_read_only_disk_is_one_for_the_guest_too() {
    let storage = Arc::new(MemoryStorage::new(vec![7; 1 << 16]));
    let disk = RawFile::open(storage).expect("a disk");
    let running = Running::start(Arc::new(ReadOnlyDisk::new(Arc::new(disk))));
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    assert_ne!(machine.features & 1 << 5, 0, "it says so");
    assert_eq!(machine.features & (1 << 13 | 1 << 14), 0, "and offers no way to change it");
    assert_eq!(machine.ask(Ask::read(0, 512)).data, [7; 512]);
    for ask in
        [Ask::write(0, &[1; 512]), Ask::discard(&segment(0, 8, 0)), Ask::zero(&segment(0, 8, 0))]
    {
        assert_eq!(machine.ask(ask).status, IO_ERROR, "{ask:?}");
    }
    assert_eq!(machine.ask(Ask::FLUSH).status, OK);
    running.end();
}

#[test]
fn interrupts_come_as_the_driver_wants_them() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let queue = &mut machine.board.queues[0];
    // The line was set once when the queue began.
    assert!(is_set(&queue.call));
    queue.set_used_event(3);
    let sent: Vec<_> = (0..4).map(|sector| queue.send(Ask::read(sector, 512))).collect();
    queue.kick();
    assert!(is_set(&queue.call), "one for the fourth");
    queue.wait_for(4);
    assert!(sent.iter().all(|sent| queue.got(*sent).status == OK));
    assert!(queue.call.read().is_err(), "and for no other");
    running.end();
}

#[test]
fn four_queues_are_served_at_once() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(4, 64).plug(&running.path, ALL);
    scope(|scope| {
        for (index, queue) in (0_u8..).zip(&mut machine.board.queues) {
            scope.spawn(move || {
                for round in 0..50_u8 {
                    let sector = u64::from(round) * 32 + u64::from(index) * 8;
                    let byte = round.wrapping_mul(4) + index;
                    let got = queue.ask(Ask::write(sector, &[byte; 4096]));
                    assert_eq!(got.status, OK);
                    let got = queue.ask(Ask::read(sector, 4096));
                    assert_eq!((got.status, got.data), (OK, vec![byte; 4096]));
                }
            });
        }
    });
    let counted = running.counters.snapshot();
    assert_eq!((counted.requests, counted.refused), (400, 0));
    assert_eq!(counted.bytes_written, 4 * 50 * 4096);
    running.end();
}

#[test]
fn a_guest_can_do_without_its_write_cache() {
    let disk = Counting::new();
    let running = Running::start(Arc::clone(&disk) as _);
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let none = VhostUserConfigFlags::empty();
    machine.ask(Ask::write(0, &[1; 512]));
    assert_eq!(disk.flushes(), 0);
    machine.frontend.set_config(32, none, &[0]).expect("it is turned off");
    assert_eq!(disk.flushes(), 1, "what was written with it is durable");
    assert_eq!(machine.config(32, 1), [0]);
    machine.ask(Ask::write(0, &[2; 512]));
    assert_eq!(disk.flushes(), 1);
    machine.ask(Ask::read(0, 512));
    assert_eq!(disk.flushes(), 0);
    // Another server of the same machine keeps it so, by the memory for requests in flight.
    let board = machine.unplug();
    let mut machine = board.plug(&running.path, ALL);
    assert_eq!(machine.config(32, 1), [0]);
    machine.ask(Ask::write(0, &[3; 512]));
    assert_eq!(disk.flushes(), 1);
    // So does a driver that begins again: its frontend shows it the configuration that it had.
    machine.frontend.reset_device().expect("reset");
    machine.board.queues.iter_mut().for_each(super::machine::Queue::reset);
    machine.frontend.set_features(machine.features).expect("taken");
    machine.start();
    assert_eq!(machine.config(32, 1), [0]);
    machine.ask(Ask::write(0, &[3; 512]));
    assert_eq!(disk.flushes(), 1);
    machine.frontend.set_config(32, none, &[1]).expect("it is turned on");
    machine.ask(Ask::write(0, &[3; 512]));
    assert_eq!(disk.flushes(), 0);
    for (offset, bytes) in [(32, &[2][..]), (0, &[0]), (24, &[1]), (32, &[1, 0])] {
        machine.frontend.set_config(offset, none, bytes).expect_err("nothing else can be changed");
    }
    // A driver that knows of no cache never flushes.
    let board = machine.unplug();
    let mut machine = board.plug(&running.path, ALL & !(1 << 9));
    machine.ask(Ask::write(0, &[4; 512]));
    assert_eq!(disk.flushes(), 1);
    running.end();
}

#[test]
fn a_guest_hears_that_its_disk_has_another_size() {
    struct News;
    impl vhost_user::VhostUserFrontendReqHandlerMut for News {
        fn handle_config_change(&mut self) -> vhost_user::HandlerResult<u64> {
            Ok(0)
        }
    }
    let disk = Counting::new();
    let running = Running::start(Arc::clone(&disk) as _);
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let news = Arc::new(std::sync::Mutex::new(News));
    let mut news = vhost_user::FrontendReqHandler::new(news).expect("a channel");
    let sender = Sender(news.get_tx_raw_fd());
    machine.frontend.set_backend_request_fd(&sender).expect("taken");
    assert_eq!(machine.sectors(), SIZE / 512);
    running.export.device().resize(SIZE / 2, Shrink::Allow).expect("another size");
    running.handle.resized(&running.export);
    news.handle_request().expect("the configuration has changed");
    assert_eq!(machine.sectors(), SIZE / 1024);
    assert_eq!(machine.ask(Ask::read(SIZE / 1024, 512)).status, IO_ERROR);
    running.end();
}

/// A descriptor as `vhost` wants it.
struct Sender(std::os::fd::RawFd);

impl std::os::fd::AsRawFd for Sender {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0
    }
}
