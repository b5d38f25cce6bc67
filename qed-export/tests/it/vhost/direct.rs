//! A disk that is used past the page cache: its reads and writes are in flight, and come back as they end.
#![allow(clippy::unwrap_used, reason = "a test that cannot begin fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use qed_core::{
    CreateOptions, Image, LockPolicy, Prepared, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_export::{BlockDevice, QedDisk, RawDisk};
use qed_io::{Existing, FileStorage, ImageLock, NewFileOptions, Storage};
use qed_spec::{Geometry, GuestOffset};
use tempfile::TempDir;
use vhost::VhostBackend as _;

use super::Running;
use super::machine::{Ask, Board, EVENT_INDEX, INDIRECT, Machine, is_set, segment};

const ALL: u64 = u64::MAX;
/// Without an event index every request that comes back interrupts.
const EACH: u64 = !EVENT_INDEX;
const SIZE: u64 = 128 << 20;
const CLUSTER: u32 = 64 << 10;
const SECTORS: u64 = CLUSTER as u64 / 512;
/// What the driver of a queue keeps apart.
const AT_ONCE: u8 = 32;
const BLOCK: usize = 12 << 10;

/// An image in a file past the page cache.
pub(super) struct Direct {
    folder: TempDir,
    image: Arc<Image>,
}

impl Direct {
    pub(super) fn new(cluster: u32) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = new_file(&folder, "qed");
        let geometry = Geometry::new(cluster, 1).unwrap();
        create(&*file, &CreateOptions { geometry, ..CreateOptions::new(SIZE) }).unwrap();
        let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
        let image = Arc::new(Image::open(file, &context).unwrap());
        Self { folder, image }
    }

    pub(super) fn disk(&self) -> Arc<dyn BlockDevice> {
        Arc::new(QedDisk::new(Arc::clone(&self.image)))
    }

    fn raw_disk(&self) -> Arc<dyn BlockDevice> {
        let file = new_file(&self.folder, "raw");
        file.set_len(SIZE).unwrap();
        Arc::new(RawDisk::open(file).unwrap())
    }

    /// Has the first cluster as a write that allocates does: others of it wait until this is dropped.
    fn hold_first(&self) -> Prepared<Arc<Image>> {
        let request = qed_core::Request::new(Arc::clone(&self.image));
        let held = request.prepare(GuestOffset::new(0), 4096).unwrap();
        assert!(matches!(held, Prepared::Allocating(_)));
        held
    }
}

fn new_file(folder: &TempDir, name: &str) -> Arc<FileStorage> {
    let options =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: true };
    Arc::new(FileStorage::create(folder.path().join(name), options).unwrap())
}

#[test]
fn many_reads_and_writes_in_flight_move_what_they_are_to_move() {
    let direct = Direct::new(CLUSTER);
    for disk in [direct.raw_disk(), direct.disk()] {
        assert!(disk.in_flight(1).unwrap().is_some(), "{disk:?} has many in flight");
        let running = Running::start(Arc::clone(&disk));
        let mut machine = Board::new(1, 128).plug(&running.path, EACH);
        let queue = &mut machine.board.queues[0];
        let blocks = || (0..AT_ONCE).map(|index| (index, u64::from(index) * 1000 * 8));
        let sent: Vec<_> = blocks()
            .map(|(index, sector)| {
                let indirect = index % 2 == 0;
                queue.send(Ask { indirect, ..Ask::write(sector, &[index + 1; BLOCK]) })
            })
            .collect();
        queue.kick();
        queue.wait_for(AT_ONCE.into());
        assert!(sent.iter().all(|sent| queue.got(*sent).status == 0));

        // Now of other lengths, to the sector.
        let len = |index: u8| 512 * (u32::from(index) % 24 + 1);
        let sent: Vec<_> =
            blocks().map(|(index, sector)| queue.send(Ask::read(sector, len(index)))).collect();
        queue.kick();
        queue.wait_for(AT_ONCE.into());
        for ((index, sector), sent) in blocks().zip(sent) {
            let got = queue.got(sent);
            assert_eq!((got.status, got.written), (0, len(index) + 1), "{disk:?} {index}");
            assert!(got.data.iter().all(|byte| *byte == index + 1), "{disk:?} {index}");
            let mut there = vec![0; BLOCK];
            disk.read_at(&mut there, sector * 512).unwrap();
            assert!(there == [index + 1; BLOCK], "{disk:?} {index}");
        }
        let counted = running.counters.snapshot();
        let bytes = u64::from(AT_ONCE) * BLOCK as u64;
        assert_eq!((counted.requests, counted.bytes_written), (64, bytes));
        running.end();
    }
}

#[test]
fn a_request_that_cannot_be_served_fails_alone() {
    let direct = Direct::new(CLUSTER);
    let running = Running::start(direct.disk());
    let mut machine = Board::new(1, 128).plug(&running.path, EACH);
    let end = SIZE / 512;
    let queue = &mut machine.board.queues[0];
    let bad = [
        Ask::read(end, 512),
        Ask::write(end - 1, &[1; 1024]),
        Ask::read(u64::MAX, 512),
        Ask::read(0, 511),
        Ask { kind: 77, ..Ask::read(0, 512) },
    ];
    let good = queue.send(Ask::write(0, &[1; 4096]));
    let sent = bad.map(|ask| queue.send(ask));
    queue.kick();
    queue.wait_for(6);
    assert_eq!(sent.map(|sent| queue.got(sent).status), [1, 1, 1, 1, 2]);
    assert_eq!(queue.got(good).status, 0);
    running.end();
}

#[test]
fn requests_come_back_as_they_end_and_a_queue_is_stopped_when_all_have() {
    let direct = Direct::new(CLUSTER);
    let running = Running::start(direct.disk());
    let mut machine = Board::new(1, 128).plug(&running.path, EACH);
    let held = direct.hold_first();
    let queue = &mut machine.board.queues[0];
    let slow = queue.send(Ask::write(0, &[5; 4096]));
    let others = [1, 2].map(|cluster| queue.send(Ask::write(cluster * SECTORS, &[6; 4096])));
    // A flush is for what has ended.
    let flush = queue.send(Ask::FLUSH);
    queue.kick();
    queue.wait_for(3);
    assert!([others[0], others[1], flush].iter().all(|sent| queue.got(*sent).status == 0));

    let is_stopped = AtomicBool::new(false);
    let Machine { frontend, board, .. } = &mut machine;
    let base = scope(|scope| {
        let stopping = scope.spawn(|| {
            let base = frontend.get_vring_base(0).expect("a base");
            is_stopped.store(true, Ordering::SeqCst);
            base
        });
        assert!(!is_stopped.load(Ordering::SeqCst), "a request is with the disk still");
        assert_eq!(board.queues[0].used_index(), 3);
        drop(held);
        stopping.join().expect("no panic")
    });
    assert_eq!((base, board.queues[0].used_index()), (4, 4));
    assert_eq!(board.queues[0].got(slow).status, 0);
    machine.start_queue(0, None);
    machine.board.queues[0].wait_for(1);
    let machine = machine.unplug();
    let mut machine = machine.plug(&running.path, ALL);
    assert_eq!(machine.ask(Ask::read(0, 4096)).data, [5; 4096]);
    running.end();
}

#[test]
fn a_head_that_is_offered_again_while_it_is_in_flight_breaks_its_queue_alone() {
    let direct = Direct::new(CLUSTER);
    let running = Running::start(direct.disk());
    let mut machine = Board::new(2, 128).plug(&running.path, EACH);
    let held = direct.hold_first();
    let [queue, other] = &mut machine.board.queues[..] else { panic!("two queues") };
    let slow = queue.send(Ask::write(0, &[5; 4096]));
    queue.offer(slow.head);
    queue.send(Ask::write(SECTORS, &[6; 4096]));
    queue.kick();
    assert_eq!(other.ask(Ask::ID).status, 0);
    drop(held);
    assert!(is_set(&queue.error), "the queue is broken");
    assert_eq!(queue.used_index(), 1, "what was taken before comes back, once");
    assert_eq!(queue.got(slow).status, 0);
    assert_eq!(other.ask(Ask::read(0, 4096)).data, [5; 4096]);
    assert_eq!(other.ask(Ask::read(SECTORS, 4096)).data, [0; 4096], "nothing is taken after it");
    running.end();
}

#[test]
fn a_frontend_that_dies_gets_back_what_was_in_flight() {
    let direct = Direct::new(CLUSTER);
    let running = Running::start(direct.disk());
    let mut machine = Board::new(1, 128).plug(&running.path, EACH);
    let held = direct.hold_first();
    let queue = &mut machine.board.queues[0];
    let slow = queue.send(Ask::write(0, &[5; 4096]));
    let fast = queue.send(Ask::write(SECTORS, &[6; 4096]));
    queue.kick();
    queue.wait_for(1);
    assert_eq!(queue.got(fast).status, 0);
    let board = machine.unplug();
    drop(held);
    // By the old session or by the new.
    let mut machine = board.plug(&running.path, EACH);
    machine.board.queues[0].wait_for(1);
    assert_eq!(machine.board.queues[0].got(slow).status, 0);
    assert_eq!(machine.ask(Ask::read(0, 4096)).data, [5; 4096]);
    running.end();
}

/// What is in flight holds its clusters until its own thread has heard of its end.
#[test]
fn what_is_performed_waits_for_what_is_in_flight_in_the_same_place() {
    let direct = Direct::new(CLUSTER);
    let running = Running::start(direct.disk());
    let mut machine = Board::new(1, 128).plug(&running.path, EACH);
    let queue = &mut machine.board.queues[0];
    let clusters = || 0..u64::from(AT_ONCE) / 4;
    let range = |cluster| segment(cluster * SECTORS, u32::try_from(SECTORS).unwrap(), 0);
    let mut sent = Vec::new();
    for cluster in clusters() {
        let at = cluster * SECTORS;
        sent.push(queue.send(Ask::write(at, &[5; 4096])));
        sent.push(queue.send(Ask::zero(&range(cluster))));
        sent.push(queue.send(Ask::write(at + 8, &[6; 4096])));
        sent.push(queue.send(Ask::discard(&range(cluster))));
    }
    queue.kick();
    queue.wait_for(AT_ONCE.into());
    assert!(sent.iter().all(|sent| queue.got(*sent).status == 0));
    for cluster in clusters() {
        assert_eq!(machine.ask(Ask::read(cluster * SECTORS, 4096)).data, [0; 4096]);
    }
    running.end();
}

#[test]
fn a_guest_without_a_write_cache_has_its_writes_durable_and_reads_in_flight() {
    let direct = Direct::new(CLUSTER);
    let running = Running::start(direct.disk());
    // A driver that knows of no cache.
    let mut machine = Board::new(1, 128).plug(&running.path, EACH & !(1 << 9));
    let queue = &mut machine.board.queues[0];
    let sent = [1, 2, 3].map(|byte| {
        let write = queue.send(Ask::write(u64::from(byte) * SECTORS, &[byte; 4096]));
        (write, queue.send(Ask::read(u64::from(byte) * SECTORS, 4096)))
    });
    queue.kick();
    queue.wait_for(6);
    for ((write, read), byte) in sent.into_iter().zip(1..) {
        assert_eq!(queue.got(write).status, 0);
        assert_eq!(queue.got(read).data, [byte; 4096]);
    }
    running.end();
}

/// Large clusters: what a few writes that allocate may take of memory is all that a queue takes.
#[test]
fn a_queue_that_is_full_goes_on_when_something_has_ended() {
    for (cluster, features) in [(4 << 20, EACH), (32 << 20, EACH), (2 << 20, EACH & !INDIRECT)] {
        let direct = Direct::new(cluster);
        let running = Running::start(direct.disk());
        let mut machine = Board::new(1, 128).plug(&running.path, features);
        let held = direct.hold_first();
        let queue = &mut machine.board.queues[0];
        let place = |index: u8| SIZE / 512 / 64 * (u64::from(index) + 32);
        let sent: Vec<_> = (0..AT_ONCE)
            .map(|index| queue.send(Ask::write(place(index), &[index + 1; 4096])))
            .collect();
        queue.kick();
        queue.wait_for(AT_ONCE.into());
        drop(held);
        assert!(sent.iter().all(|sent| queue.got(*sent).status == 0));
        for index in 0..AT_ONCE {
            assert_eq!(machine.ask(Ask::read(place(index), 4096)).data, [index + 1; 4096]);
        }
        running.end();
    }
}
