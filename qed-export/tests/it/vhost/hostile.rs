//! Frontends that say what none should: each loses its connection or is told no, and the next is served.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::VhostUserFrontend as _;
use vhost::vhost_user::message::VhostUserInflight;
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

use super::Running;
use super::machine::{Ask, Board, MEMORY, Machine, memory_file};
use crate::client::qed_disk;

const ALL: u64 = u64::MAX;

/// A message as bytes.
fn message(code: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("short");
    [&[code, flags, len].map(u32::to_le_bytes).concat()[..], body].concat()
}

#[test]
fn what_is_no_message_ends_the_connection_and_nothing_else() {
    let running = Running::start(qed_disk());
    let file = memory_file(4096);
    let fds: Vec<RawFd> = vec![file.as_raw_fd(); 30];
    let cases: [(&str, Vec<u8>, usize); 18] = [
        ("noise", vec![0xa5; 4000], 0),
        ("version 0", message(1, 0, &[]), 0),
        ("version 3", message(1, 3, &[]), 0),
        ("a reply", message(1, 5, &[]), 0),
        ("an unknown number", message(99, 1, &[]), 0),
        ("a number that is for networks", message(19, 1, &[0; 8]), 0),
        ("a body that is too long", message(2, 1, &[0; 9]), 0),
        ("a body that is too short", message(2, 1, &[0; 7]), 0),
        ("a length of 4 GiB", [2, 1, u32::MAX].map(u32::to_le_bytes).concat(), 0),
        ("a message cut short", message(2, 1, &[0; 8])[..15].to_vec(), 0),
        ("a table without descriptors", message(5, 1, &[&[1, 0, 0, 0][..], &[0; 36]].concat()), 0),
        ("a table with too many", message(5, 1, &[&[1, 0, 0, 0][..], &[0; 36]].concat()), 5),
        ("a table of 2^32 regions", message(5, 1, &[0xff; 8]), 0),
        ("a kick without a descriptor", message(12, 1, &[0; 8]), 0),
        ("a kick with two", message(12, 1, &[0; 8]), 2),
        ("a log without a descriptor", message(6, 1, &[1; 16]), 0),
        ("more descriptors than any message has", message(1, 1, &[]), 30),
        ("features that were not offered", message(2, 1, &[0xff; 8]), 0),
    ];
    for (what, bytes, count) in cases {
        let mut stream = UnixStream::connect(&running.path).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
        stream.send_with_fds(&[&bytes[..]], &fds[..count]).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("nothing more");
        let mut rest = Vec::new();
        // Reset, or closed.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{what}: {rest:?}");
    }
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    assert_eq!(machine.ask(Ask::ID).status, 0);
    running.end();
}

#[test]
fn a_frontend_that_says_nothing_keeps_the_server_from_nothing_but_others() {
    let running = Running::start(qed_disk());
    let silent = UnixStream::connect(&running.path).expect("connected");
    // Half a message.
    silent.send_with_fds(&[&[1_u8, 0, 0][..]], &[]).expect("sent");
    drop(silent);
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    assert_eq!(machine.ask(Ask::ID).status, 0);
    running.end();
}

#[test]
fn memory_that_its_file_does_not_hold_is_refused() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let short = memory_file(4096);
    let region = |guest: u64, len: u64, offset: u64, file: &File| VhostUserMemoryRegionInfo {
        guest_phys_addr: guest,
        memory_size: len,
        userspace_addr: guest,
        mmap_offset: offset,
        mmap_handle: file.as_raw_fd(),
    };
    let free = MEMORY * 4;
    for (what, region) in [
        ("longer than its file", region(free, 8192, 0, &short)),
        ("past the end of its file", region(free, 4096, 4096, &short)),
        ("over what is there", region(0, 4096, 0, &short)),
        ("not at a page of its file", region(free, 1024, 512, &short)),
    ] {
        machine.frontend.add_mem_region(&region).expect_err(what);
        machine.frontend.set_mem_table(&[region, region]).expect_err(what);
    }
    let device = File::open("/dev/zero").expect("a device");
    machine.frontend.add_mem_region(&region(free, 4096, 0, &device)).expect_err("a device");
    assert_eq!(machine.ask(Ask::ID).status, 0, "memory is as before");
    running.end();
}

#[test]
fn queues_that_cannot_be_are_refused() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let Machine { frontend, board, .. } = &mut machine;
    for size in [0, 3, 100, 2048, u16::MAX] {
        frontend.set_vring_num(0, size).expect_err("no size of a queue");
    }
    let good = board.queues[0].config(None);
    let bad = [
        VringConfigData { desc_table_addr: 0, ..good },
        VringConfigData { desc_table_addr: good.desc_table_addr + MEMORY, ..good },
        VringConfigData { avail_ring_addr: u64::MAX - 1, ..good },
        VringConfigData { used_ring_addr: good.desc_table_addr + MEMORY - 64, ..good },
    ];
    for config in bad {
        frontend.set_vring_addr(0, &config).expect_err("not in memory");
    }
    frontend.set_vring_addr(0, &good).expect("as before");
    assert_eq!(machine.ask(Ask::ID).status, 0);
    running.end();
}

#[test]
fn requests_in_flight_in_no_shape_are_refused() {
    let running = Running::start(qed_disk());
    let mut machine = Board::new(1, 128).plug(&running.path, ALL);
    let file = memory_file(1 << 20);
    for (len, queues, size) in
        [(4096, 5, 128), (4096, 1, 1025), (16, 1, 128), (1 << 40, 1, 128), (1 << 21, 1, 128)]
    {
        let info = VhostUserInflight::new(len, 0, queues, size);
        let refused = machine.frontend.set_inflight_fd(&info, file.as_raw_fd());
        refused.expect_err(&format!("{len} {queues} {size}"));
    }
    let none = machine.frontend.get_inflight_fd(&VhostUserInflight::new(0, 0, 5, 128));
    assert!(none.is_err(), "five queues of four");
    running.end();
}
