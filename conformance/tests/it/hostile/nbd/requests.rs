//! Requests that ask for too much, for what is not there, or for the same as others at once.

use super::Case;
use super::client::*;
use super::server::{DISK, Server};

const MIB: u32 = 1 << 20;

pub(super) const CASES: &[Case] = &[
    Case::new("nbd-requests-past-the-end", past_the_end),
    Case::new("nbd-payload-of-4-gibibytes", |server| {
        let mut client = server.transmitting();
        client.send(&request(0, WRITE, 0, u32::MAX));
        client.is_hung_up_on();
    }),
    Case::new("nbd-payload-of-more-than-32-mebibytes", |server| {
        let mut client = server.transmitting();
        client.send(&request(0, WRITE, 0, 32 * MIB + 1));
        client.send(&vec![7; 32 << 20 | 1]);
        assert_eq!(client.simple(), EINVAL);
        assert_eq!(server.file_len(), empty_len(), "something was written");
        client.send(&request(0, READ, 0, 512));
        assert_eq!((client.simple(), client.take(512)), (0, Some(vec![0; 512])));
    }),
    Case::new("nbd-read-of-more-than-32-mebibytes", |server| {
        let mut client = server.transmitting();
        for len in [32 * MIB + 1, 1 << 31, u32::MAX] {
            client.send(&request(0, READ, 0, len));
            assert_eq!(client.simple(), EINVAL, "{len}");
        }
    }),
    Case::new("nbd-lengths-of-2-to-the-63", lengths_of_2_to_the_63),
    Case::new("nbd-unknown-commands-and-flags", unknown_commands),
    Case::new("nbd-block-status-of-4-gibibytes", block_status),
    Case::new("nbd-one-cookie-for-all", |server| {
        let mut client = server.transmitting();
        client.send(&request(0, READ, 0, 16).repeat(1000));
        for index in 0..1000 {
            assert_eq!((client.simple(), client.take(16)), (0, Some(vec![0; 16])), "{index}");
        }
    }),
    Case::new("nbd-overlapping-writes", overlapping_writes),
    Case::new("nbd-zeros-for-the-whole-disk", zeros_for_all),
    Case::new("nbd-changes-of-a-read-only-disk", read_only).with_args("--read-only -f qed"),
];

/// Length of the image file before anything is written.
fn empty_len() -> u64 {
    // Header and L1 table, each in clusters of 64 KiB.
    5 << 16
}

fn past_the_end(server: &Server) {
    let mut client = server.transmitting();
    let places =
        [(DISK, 1), (DISK - 511, 512), (u64::MAX, 1), (u64::MAX - 511, 512), (1 << 63, 512)];
    for (at, len) in places {
        let table =
            [(READ, EINVAL), (WRITE, ENOSPC), (TRIM, EINVAL), (CACHE, EINVAL), (ZEROES, ENOSPC)];
        for (command, errno) in table {
            client.send(&request(0, command, at, len));
            if command == WRITE {
                client.send(&vec![7; len as usize]);
            }
            assert_eq!(client.simple(), errno, "{command} at {at:#x}");
        }
    }
    assert_eq!(server.file_len(), empty_len(), "something was written");
}

fn lengths_of_2_to_the_63(server: &Server) {
    let start = || {
        let mut client = server.hello();
        client.send(&option(EXTENDED, b""));
        assert_eq!(client.option_reply(EXTENDED), ACK);
        client.go();
        client
    };
    for len in [1 << 40 | 1, 1 << 63, u64::MAX] {
        let mut client = start();
        for command in [READ, TRIM, CACHE, ZEROES, STATUS] {
            client.send(&extended(0, command, 1, len));
            let head = client.take(32).expect("a chunk");
            let [kind, text] = [6..8, 24..32].map(|range| head[range].to_vec());
            assert_eq!(kind, 32_769_u16.to_be_bytes(), "{command}: an error");
            client.take(number(&text[4..]) as usize).expect("its text");
        }
        client.send(&extended(0, WRITE, 0, len));
        client.is_hung_up_on();
        // A payload where there is none.
        let mut client = start();
        client.send(&extended(1 << 5, READ, 0, len));
        client.is_hung_up_on();
    }
}

fn unknown_commands(server: &Server) {
    let mut client = server.transmitting();
    for command in [8, 9, 100, u16::MAX] {
        client.send(&request(0, command, 0, 0));
        assert_eq!(client.simple(), EINVAL, "command {command}");
    }
    for command in [READ, WRITE, FLUSH, TRIM, CACHE, ZEROES, STATUS] {
        for flags in [1 << 6, 1 << 15, u16::MAX] {
            client.send(&request(flags, command, 0, 0));
            assert_eq!(client.simple(), EINVAL, "flags {flags:#x} of command {command}");
        }
    }
}

/// Of a disk on which each second of ten thousand clusters has data.
fn block_status(server: &Server) {
    let mut client = server.hello();
    let contexts = [string(b""), vec![0, 0, 0, 1], string(b"base:allocation")].concat();
    for (number, data) in [(STRUCTURED, &[][..]), (SET_META, &contexts)] {
        client.send(&option(number, data));
        assert_eq!(client.option_reply(number), ACK);
    }
    client.go();
    for index in 0..5000 {
        client.send(&[request(0, WRITE, index << 17, 1), vec![7]].concat());
        assert_eq!(client.take(20).expect("a chunk")[..8], [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 0]);
    }
    client.send(&request(0, STATUS, 0, u32::MAX));
    let head = client.take(20).expect("a chunk");
    let len = number(&head[16..]);
    assert_eq!(head[6..8], [0, 5], "block status");
    // The context, and eight bytes for each of as many extents as are looked at.
    assert_eq!(len, 4 + 8 * 4096);
    client.take(len as usize).expect("all of it");
}

/// Four clients write the same four clusters at once, each its own byte.
fn overlapping_writes(server: &Server) {
    // Four clusters but for the first bytes.
    const LEN: u32 = 4 * 65_536 - 1000;
    std::thread::scope(|scope| {
        for fill in 1..=4_u8 {
            scope.spawn(move || {
                let mut client = server.transmitting();
                for index in 0..64_u64 {
                    let at = index * 37 % 61 * 4096 + 1000;
                    client.send(&[request(0, WRITE, at, 9000), vec![fill; 9000]].concat());
                }
                (0..64).for_each(|_| assert_eq!(client.simple(), 0));
            });
        }
    });
    let mut client = server.transmitting();
    client.send(&request(0, READ, 1000, LEN));
    assert_eq!(client.simple(), 0);
    let disk = client.take(LEN as usize).expect("the disk");
    let written = 60 * 4096 + 9000;
    assert!(disk[..written].iter().all(|byte| (1..=4).contains(byte)), "bytes of nobody");
    assert!(disk[written..].iter().all(|byte| *byte == 0));
}

/// What is not allocated costs nothing.
fn zeros_for_all(server: &Server) {
    let mut client = server.hello();
    client.send(&option(EXTENDED, b""));
    assert_eq!(client.option_reply(EXTENDED), ACK);
    client.go();
    for command in [TRIM, ZEROES, CACHE] {
        for _ in 0..10 {
            client.send(&extended(0, command, 0, DISK));
            let head = client.take(32).expect("a chunk");
            assert_eq!(head[4..8], [0, 1, 0, 0], "done");
        }
    }
    assert_eq!(server.file_len(), empty_len());
}

fn read_only(server: &Server) {
    let before = std::fs::read(server.folder.file("disk")).expect("the image");
    let mut client = server.transmitting();
    for command in [WRITE, TRIM, ZEROES] {
        client.send(&request(0, command, 0, 512));
        if command == WRITE {
            client.send(&[7; 512]);
        }
        assert_eq!(client.simple(), EPERM, "{command}");
    }
    let after = std::fs::read(server.folder.file("disk")).expect("the image");
    assert!(before == after, "the file was changed");
}
