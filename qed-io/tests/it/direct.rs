//! Direct I/O: sectors shared by several writers, and ends of files inside one.

use std::sync::Barrier;

use qed_io::{FileOptions, FileStorage, Storage};

use crate::support::{DIRECT, contents, on_disk};

const THREADS: usize = 8;

#[test]
fn neighbours_in_one_sector_keep_their_bytes() {
    const PIECE: usize = 56;
    const ROUNDS: usize = 60;
    let folder = on_disk();
    let storage = FileStorage::create(folder.path().join("image"), DIRECT).unwrap();
    storage.set_len((PIECE * THREADS * ROUNDS) as u64).unwrap();
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (storage, start) = (&storage, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let at = (round * THREADS + thread) * PIECE;
                    storage.write_at(&[thread as u8 + 1; PIECE], at as u64).unwrap();
                }
            });
        }
    });
    let want: Vec<u8> =
        (0..PIECE * THREADS * ROUNDS).map(|at| (at / PIECE % THREADS) as u8 + 1).collect();
    assert!(contents(&storage) == want);
}

#[test]
fn writers_that_grow_the_file_do_not_cut_each_other_off() {
    const PIECE: usize = 1000;
    const ROUNDS: usize = 40;
    let folder = on_disk();
    let path = folder.path().join("image");
    let storage = FileStorage::create(&path, DIRECT).unwrap();
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (storage, start) = (&storage, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let at = (round * THREADS + thread) * PIECE;
                    storage.write_at(&[thread as u8 + 1; PIECE], at as u64).unwrap();
                    storage.write_zeroes(at as u64 + 7..at as u64 + 9).unwrap();
                }
            });
        }
    });
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), PIECE * THREADS * ROUNDS);
    for (at, &byte) in bytes.iter().enumerate() {
        let want = if matches!(at % PIECE, 7 | 8) { 0 } else { at / PIECE % THREADS + 1 };
        assert_eq!(usize::from(byte), want, "at {at}");
    }
}

#[test]
fn a_buffer_at_any_address_and_of_any_length_is_transferred() {
    let folder = on_disk();
    let path = folder.path().join("image");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 253) as u8).collect();
    // One write and read longer than any bounce buffer, from an odd address to an odd place.
    let storage = FileStorage::create(&path, DIRECT).unwrap();
    storage.write_at(&bytes[1..], 1).unwrap();
    let mut back = vec![0; bytes.len() - 3];
    storage.read_at(&mut back[1..], 3).unwrap();
    assert!(back[1..] == bytes[3..bytes.len() - 1]);
    drop(storage);
    assert!(std::fs::read(&path).unwrap() == bytes);
}

#[test]
fn the_cached_view_and_the_direct_one_agree() {
    let folder = on_disk();
    let path = folder.path().join("image");
    let direct = FileStorage::create(&path, DIRECT).unwrap();
    let cached = FileStorage::open(&path, FileOptions::READ_WRITE).unwrap();
    direct.write_at(b"direct", 700).unwrap();
    cached.write_at(b"cached", 706).unwrap();
    for storage in [&direct, &cached] {
        assert_eq!(&contents(storage)[700..], b"directcached");
    }
}
