//! The ring: many transfers of one file in flight from one thread, beside others that use the file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qed_io::{
    AlignedBuf, Direction, FileOptions, FileStorage, MemoryStorage, NewFileOptions, Ring,
    SharedBuf, Storage, Transfer,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::support::{BUFFERED, DIRECT, contents, on_disk, on_tmpfs};

const SECTOR: usize = 4096;

fn filled(file: &FileStorage, len: usize, byte: u8) -> AlignedBuf {
    let mut buffer = file.buffer(len);
    buffer.fill(byte);
    buffer
}

fn transfer(
    file: &Arc<FileStorage>,
    tag: u64,
    direction: Direction,
    buffer: AlignedBuf,
    offset: u64,
) -> Transfer {
    let part = 0..buffer.len();
    Transfer { tag, file: Arc::clone(file), direction, buffer, part, offset }
}

/// What all transfers of a ring came to, by tag.
fn finish(ring: &mut Ring) -> BTreeMap<u64, (Vec<u8>, Option<ErrorKind>)> {
    let mut ended = BTreeMap::new();
    while let Some(done) = ring.wait().unwrap() {
        let error = done.result.err().map(|error| error.kind());
        assert!(ended.insert(done.tag, (done.buffer.to_vec(), error)).is_none(), "ended twice");
    }
    assert_eq!(ring.pending(), 0);
    ended
}

fn each_way(test: impl Fn(NewFileOptions, &Arc<FileStorage>)) {
    for options in [BUFFERED, DIRECT] {
        let folder = on_disk();
        let file = Arc::new(FileStorage::create(folder.path().join("image"), options).unwrap());
        test(options, &file);
    }
}

/// Lengths and places as they come, most of them whole sectors, more in flight than there is room.
#[test]
fn transfers_do_what_calls_do() {
    each_way(|_, file| {
        let model = MemoryStorage::default();
        let mut state = 7_u64;
        let mut random = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % end
        };
        for round in 0..60_u8 {
            let mut ring = file.ring(8).unwrap();
            // Transfers of one round lie in places of their own.
            let mut reads = Vec::new();
            for (tag, place) in (0..20).map(|place| (place, place * 16 * SECTOR as u64)) {
                let (skip, len) = if random(5) == 0 {
                    (random(5000), 1 + random(20_000))
                } else {
                    (random(4) * SECTOR as u64, (1 + random(8)) * SECTOR as u64)
                };
                let (at, len) = (place + skip, len as usize);
                if random(2) == 0 {
                    let byte = round.wrapping_mul(20).wrapping_add(tag as u8);
                    model.write_at(&vec![byte; len], at).unwrap();
                    ring.start(transfer(file, tag, Direction::Write, filled(file, len, byte), at));
                } else {
                    reads.push((tag, at, len));
                    ring.start(transfer(file, tag, Direction::Read, filled(file, len, 0xee), at));
                }
            }
            // A model has no defined length while writes are under way: it is asked at the end.
            let ended = finish(&mut ring);
            assert_eq!(ended.len(), 20);
            for (tag, at, len) in reads {
                let mut expected = vec![0; len];
                match (&ended[&tag], model.read_at(&mut expected, at)) {
                    ((bytes, None), Ok(())) => assert!(*bytes == expected, "read {tag}"),
                    // The file was shorter when it was read, or is still.
                    ((_, Some(ErrorKind::UnexpectedEof)), _) => {}
                    (found, expected) => panic!("read {tag}: {:?} {expected:?}", found.1),
                }
            }
            assert!(
                ended.values().all(|(_, error)| {
                    error.is_none_or(|error| error == ErrorKind::UnexpectedEof)
                })
            );
        }
        assert!(contents(&**file) == contents(&model));
    });
}

#[test]
fn what_lies_past_the_end_is_an_end_of_file() {
    each_way(|_, file| {
        file.write_at(&[5; 3 * SECTOR - 100], 0).unwrap();
        let mut ring = file.ring(4).unwrap();
        for (tag, sectors, at) in [(0, 2, 0), (1, 3, 0), (2, 1, 3), (3, 1, 100), (4, 0, 200)] {
            let buffer = file.buffer(sectors * SECTOR);
            ring.start(transfer(file, tag, Direction::Read, buffer, at * SECTOR as u64));
        }
        ring.start(transfer(file, 5, Direction::Read, file.buffer(SECTOR), u64::MAX - 10));
        ring.start(transfer(file, 6, Direction::Write, file.buffer(SECTOR), u64::MAX - 10));
        let ended = finish(&mut ring);
        assert!(ended[&0].1.is_none() && ended[&0].0 == [5; 2 * SECTOR]);
        for tag in [1, 2, 3, 5] {
            assert_eq!(ended[&tag].1, Some(ErrorKind::UnexpectedEof), "{tag}");
        }
        assert_eq!((ended[&4].1, ended[&6].1), (None, Some(ErrorKind::FileTooLarge)));
        assert_eq!(file.len().unwrap(), 3 * SECTOR as u64 - 100);
    });
}

#[test]
fn a_ring_without_depth_has_room_for_one() {
    each_way(|_, file| {
        file.set_len(4 * SECTOR as u64).unwrap();
        let mut ring = file.ring(0).unwrap();
        for place in 0..4 {
            let buffer = filled(file, SECTOR, 5);
            ring.start(transfer(file, place, Direction::Write, buffer, place * SECTOR as u64));
        }
        assert_eq!(finish(&mut ring).len(), 4);
        assert!(contents(&**file) == [5; 4 * SECTOR]);
    });
}

#[test]
fn a_file_open_for_reading_is_not_written() {
    let folder = on_tmpfs();
    let path = folder.path().join("image");
    std::fs::write(&path, [3; SECTOR]).unwrap();
    let file = Arc::new(FileStorage::open(&path, FileOptions::READ_ONLY).unwrap());
    let mut ring = file.ring(1).unwrap();
    ring.start(transfer(&file, 0, Direction::Write, filled(&file, SECTOR, 9), 0));
    ring.start(transfer(&file, 1, Direction::Read, file.buffer(SECTOR), 0));
    let ended = finish(&mut ring);
    assert_eq!(ended[&0].1, Some(ErrorKind::PermissionDenied));
    assert!(ended[&1].1.is_none() && ended[&1].0 == [3; SECTOR]);
}

#[test]
fn a_dropped_ring_has_ended_its_transfers() {
    each_way(|_, file| {
        file.set_len(64 * SECTOR as u64).unwrap();
        for byte in 1..=20 {
            let mut ring = file.ring(64).unwrap();
            for place in 0..64 {
                let buffer = filled(file, SECTOR, byte);
                ring.start(transfer(file, place, Direction::Write, buffer, place * SECTOR as u64));
            }
            // All are started by the first that is waited for.
            ring.wait().unwrap();
            drop(ring);
            assert!(contents(&**file) == [byte; 64 * SECTOR]);
        }
    });
}

#[test]
fn memory_that_others_use_goes_the_same_ways() {
    let shared = |file: &FileStorage, len: usize, byte: u8| {
        let mut buffer = file.buffer(len);
        buffer.fill(byte);
        SharedBuf(buffer)
    };
    each_way(|_, file| {
        let mut ring = file.ring(4).unwrap();
        // Whole sectors go to the kernel as they lie, where the rest is copied on its way.
        for (tag, part) in [(0, 0..SECTOR), (1, SECTOR + 3..2 * SECTOR)] {
            let (direction, offset) = (Direction::Write, part.start as u64);
            let (file, buffer) = (Arc::clone(file), shared(file, 2 * SECTOR, 7));
            ring.start(Transfer { tag, file, direction, buffer, part, offset });
            ring.wait().unwrap().expect("one is in flight").result.unwrap();
        }
        assert!(file.len().unwrap() == 2 * SECTOR as u64);
        for part in [0..SECTOR, SECTOR..SECTOR + 5] {
            let (tag, direction, offset) = (2, Direction::Read, part.start as u64);
            let (file, buffer) = (Arc::clone(file), shared(file, 2 * SECTOR, 1));
            let around = part.clone();
            ring.start(Transfer { tag, file, direction, buffer, part, offset });
            let done = ring.wait().unwrap().expect("one is in flight");
            done.result.unwrap();
            for (at, byte) in done.buffer.0.iter().enumerate() {
                let is_gap = (SECTOR..SECTOR + 3).contains(&at);
                let want = if !around.contains(&at) { 1 } else { 7 * u8::from(!is_gap) };
                assert_eq!(*byte, want, "byte {at}");
            }
        }
    });
}

#[test]
fn an_event_tells_when_transfers_have_ended() {
    each_way(|_, file| {
        file.set_len(64 * SECTOR as u64).unwrap();
        let mut ring = file.ring(8).unwrap();
        let is_readable = |ring: &mut Ring, wait: bool| {
            let event = ring.completion_fd().unwrap();
            let timeout = Timespec { tv_sec: if wait { 20 } else { 0 }, tv_nsec: 0 };
            retry_on_intr(|| poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout)))
                .unwrap()
                == 1
        };
        for round in 0..10 {
            for place in 0..64 {
                let buffer = filled(file, SECTOR, round);
                ring.start(transfer(file, place, Direction::Write, buffer, place * SECTOR as u64));
            }
            let mut left = 64;
            while left > 0 {
                while let Some(done) = ring.try_wait().unwrap() {
                    done.result.unwrap();
                    left -= 1;
                }
                assert!(left == 0 || is_readable(&mut ring, true), "{left} are never told of");
            }
            ring.try_wait().unwrap();
            assert!(!is_readable(&mut ring, false), "nothing is left to be told of");
        }
    });
}

#[test]
fn what_ends_at_once_does_not_keep_the_kernel_from_being_asked() {
    each_way(|_, file| {
        file.set_len(SECTOR as u64).unwrap();
        let mut ring = file.ring(4).unwrap();
        ring.start(transfer(file, 7, Direction::Read, file.buffer(SECTOR), 0));
        for _ in 0..100 {
            ring.start(transfer(file, 0, Direction::Read, file.buffer(0), 0));
            if ring.wait().unwrap().expect("one is in flight").tag == 7 {
                return;
            }
        }
        panic!("nobody asked the kernel");
    });
}

/// A writer of parts of sectors rewrites what is around them; it must not put old bytes back.
#[test]
fn a_sector_that_others_write_in_part_keeps_what_the_ring_wrote() {
    const ROUNDS: u32 = 400;
    let folder = on_disk();
    let file = Arc::new(FileStorage::create(folder.path().join("image"), DIRECT).unwrap());
    file.set_len(8 * SECTOR as u64).unwrap();
    let is_over = AtomicBool::new(false);
    let lost = std::thread::scope(|scope| {
        scope.spawn(|| {
            for place in (0..8).cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
                file.write_at(&[0xff; 10], place * SECTOR as u64).unwrap();
            }
        });
        let mut lost = Vec::new();
        let mut ring = file.ring(8).unwrap();
        for round in 0..ROUNDS {
            let byte = (round % 250) as u8;
            for place in 0..8 {
                let buffer = filled(&file, SECTOR, byte);
                ring.start(transfer(&file, place, Direction::Write, buffer, place * SECTOR as u64));
            }
            finish(&mut ring);
            let places = contents(&*file);
            let mut sectors = places.chunks(SECTOR);
            if !sectors.all(|sector| sector[10..].iter().all(|found| *found == byte)) {
                lost.push(round);
            }
        }
        // Whatever happened: the other thread ends.
        is_over.store(true, Ordering::Relaxed);
        lost
    });
    assert_eq!(lost, [], "rounds that lost bytes");
}

#[test]
fn a_file_grows_beside_transfers_of_the_same_thread() {
    each_way(|_, file| {
        file.set_len(32 * SECTOR as u64).unwrap();
        let mut ring = file.ring(32).unwrap();
        for place in 0..32 {
            let buffer = filled(file, SECTOR, 1);
            ring.start(transfer(file, place, Direction::Write, buffer, place * SECTOR as u64));
        }
        ring.wait().unwrap();
        file.set_len(64 * SECTOR as u64).unwrap();
        finish(&mut ring);
        assert_eq!(file.len().unwrap(), 64 * SECTOR as u64);
    });
}

/// What the ring knew of the length must not make it hold what is past the end now.
#[test]
fn a_file_that_was_cut_grows_beside_transfers_of_the_same_thread() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        each_way(|_, file| {
            file.set_len(32 * SECTOR as u64).unwrap();
            let mut ring = file.ring(4).unwrap();
            file.set_len(SECTOR as u64).unwrap();
            let at = 16 * SECTOR as u64;
            ring.start(transfer(file, 0, Direction::Write, filled(file, SECTOR, 1), at));
            // Ends at once, beside what is in flight.
            ring.start(transfer(file, 1, Direction::Read, filled(file, 0, 0), 0));
            ring.wait().unwrap();
            file.set_len(64 * SECTOR as u64).unwrap();
            finish(&mut ring);
            assert_eq!(file.len().unwrap(), 64 * SECTOR as u64);
            let mut found = vec![0; SECTOR];
            file.read_at(&mut found, at).unwrap();
            assert!(found.iter().all(|byte| *byte == 1));
        });
        tell.send(()).unwrap();
    });
    told.recv_timeout(std::time::Duration::from_secs(20)).expect("the thread waits for itself");
}
