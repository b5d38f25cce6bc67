//! A guest that moves to another host: every page that the server writes is in the dirty log.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use qed_export::BlockDevice;
use vhost::{VhostBackend as _, VhostUserDirtyLogRegion};

use super::Running;
use super::direct::Direct;
use super::machine::{Ask, Board, DATA, LOG_ALL, MEMORY, Machine, memory_file};
use crate::client::qed_disk;

const PAGE: u64 = 4096;
const LOG_BYTES: usize = 4096;
/// Where the used ring counts as written.
const USED_LOG: u64 = MEMORY - 8 * PAGE;

/// A machine and the log of its pages.
struct Moving {
    machine: Machine,
    log: std::fs::File,
}

impl Moving {
    fn begin(running: &Running) -> Self {
        let machine = Board::new(1, 128).plug(&running.path, !LOG_ALL);
        Self { machine, log: memory_file(PAGE) }
    }

    /// Tells the server to log, while the queue runs.
    fn log(&mut self) {
        let region = VhostUserDirtyLogRegion {
            mmap_size: PAGE,
            mmap_offset: 0,
            mmap_handle: self.log.as_raw_fd(),
        };
        let Machine { frontend, board, features } = &mut self.machine;
        frontend.set_log_base(0, Some(region)).expect("a log");
        frontend.set_features(*features | LOG_ALL).expect("taken");
        let config = board.queues[0].config(Some(USED_LOG));
        frontend.set_vring_addr(0, &config).expect("an address");
    }

    /// The pages that were written since this was last called.
    fn pages(&self) -> Vec<u64> {
        let mut bits = [0; LOG_BYTES];
        self.log.read_exact_at(&mut bits, 0).expect("read");
        self.log.write_all_at(&[0; LOG_BYTES], 0).expect("written");
        let set = |(byte, bits): (u64, u8)| {
            (0..8).filter(move |bit| bits & 1 << bit != 0).map(move |bit| byte * 8 + bit)
        };
        (0..).zip(bits).flat_map(set).collect()
    }
}

#[test]
fn pages_are_logged_from_when_the_frontend_says_so_until_it_does_not() {
    pages_are_logged(qed_disk());
    // Reads are logged when they have ended.
    pages_are_logged(Direct::new(65536).disk());
}

fn pages_are_logged(disk: Arc<dyn BlockDevice>) {
    let running = Running::start(disk);
    let mut moving = Moving::begin(&running);
    moving.machine.ask(Ask::read(0, 8192));
    assert!(moving.pages().is_empty());
    moving.log();
    moving.pages();

    let used = USED_LOG / PAGE;
    let heads = 0x2_0000 / PAGE;
    moving.machine.ask(Ask::FLUSH);
    // Its status and its element.
    assert_eq!(moving.pages(), [heads, used]);
    moving.machine.ask(Ask::write(0, &[1; 4096]));
    assert_eq!(moving.pages().iter().filter(|page| (DATA / PAGE..used).contains(*page)).count(), 0);
    // The third request of the driver has its data twelve pages further on.
    moving.machine.ask(Ask::read(0, 8192));
    let data: Vec<_> =
        moving.pages().into_iter().filter(|page| (DATA / PAGE..used).contains(page)).collect();
    let first = DATA / PAGE + 12;
    assert_eq!(data, [first, first + 1]);

    let features = moving.machine.features;
    moving.machine.frontend.set_features(features).expect("taken");
    let config = moving.machine.board.queues[0].config(None);
    moving.machine.frontend.set_vring_addr(0, &config).expect("an address");
    moving.pages();
    moving.machine.ask(Ask::read(0, 8192));
    assert!(moving.pages().is_empty());
    running.end();
}

#[test]
fn a_log_that_its_file_does_not_hold_ends_the_frontend() {
    let running = Running::start(qed_disk());
    let moving = Moving::begin(&running);
    let region = VhostUserDirtyLogRegion {
        mmap_size: 2 * PAGE,
        mmap_offset: 0,
        mmap_handle: moving.log.as_raw_fd(),
    };
    moving.machine.frontend.set_log_base(0, Some(region)).expect_err("it is too short");
    running.end();
}

#[test]
fn the_machine_goes_on_where_it_moves_to() {
    let disk = qed_disk();
    let here = Running::start(disk);
    let mut machine = Board::new(1, 128).plug(&here.path, u64::MAX);
    machine.ask(Ask::write(3, &[9; 512]));
    let base = machine.frontend.get_vring_base(0).expect("a base");
    assert_eq!(base, 1);
    // Memory moves with the machine, requests in flight do not.
    let mut board = machine.unplug();
    board.inflight = None;
    let mut machine = board.plug(&here.path, u64::MAX);
    assert_eq!(machine.ask(Ask::read(3, 512)).data, [9; 512]);
    here.end();
}
