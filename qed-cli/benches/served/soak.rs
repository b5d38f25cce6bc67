//! A long run against `qed vhost`: what is written is read back, and the server's memory stays as it is.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::frontend::{Guest, Kind, MAX_DEPTH};
use crate::servers::{Cache, Content, DISK, Protocol, Server, Who};

const QUEUES: usize = 4;
const BLOCK: u64 = 16 << 10;
/// How much more memory a server may have in the end than after the first tenth.
const GROWTH_BYTES: u64 = 4 << 20;

/// Writes and reads by four queues until the time is over.
pub(crate) fn run(dir: &Path, time: Duration) {
    let protocol = Protocol::VhostUser { queues: QUEUES };
    let server = Server::start(dir, Who::Ours, protocol, Content::Fresh, Cache::PageCache);
    let mut guest = Guest::connect(&server.place, QUEUES, usize::try_from(BLOCK).unwrap());
    let start = Instant::now();
    let (mut rounds, mut before) = (0_u64, None);
    while start.elapsed() < time {
        std::thread::scope(|scope| {
            for (index, queue) in guest.queues.iter_mut().enumerate() {
                scope.spawn(move || round(queue, index as u64, rounds));
            }
        });
        rounds += 1;
        let now = server.resident_bytes();
        if before.is_none() && start.elapsed() > time / 10 {
            before = Some(now);
        }
        if rounds.is_multiple_of(200) {
            println!("{} s: {} KiB", start.elapsed().as_secs(), now >> 10);
        }
    }
    let (before, end) = (before.expect("more than one round"), server.resident_bytes());
    println!("soak: {rounds} rounds, {} KiB to {} KiB", before >> 10, end >> 10);
    assert!(end <= before + GROWTH_BYTES, "the server's memory grew");
}

/// Each queue has a quarter of the disk, and writes a byte of its own that no round before it wrote there.
fn round(queue: &mut crate::frontend::Queue, index: u64, round: u64) {
    let blocks = DISK / BLOCK / QUEUES as u64;
    let first = index * blocks + round * 1237 % (blocks - 512);
    let byte = u8::try_from((round + index * 61) % 251).unwrap() + 1;
    let places = || (first..first + 512).map(|block| block * BLOCK);
    queue.fill(byte);
    queue.run(Kind::Write, 32, places());
    queue.fill(0);
    queue.run(Kind::Read, 32, places());
    assert!((0..32.min(MAX_DEPTH)).all(|slot| queue.data_is(slot, byte)), "what was written");
}
