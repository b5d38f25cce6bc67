//! Random operations: every storage agrees with a plain vector of bytes.

use std::io::ErrorKind;
use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use qed_io::{FileStorage, Growth, MemoryStorage, Piece, PieceMut, RunKind, SharedSlice, Storage};

use crate::support::{BUFFERED, DIRECT, LoopDevice, contents, on_disk, on_tmpfs};

const MAX_LEN: u64 = 40_000;

#[derive(Debug, Clone)]
enum Op {
    Read(Range<u64>),
    Write(Range<u64>, u8),
    WriteVectored(Range<u64>, u8),
    WriteZeroes(Range<u64>),
    Punch(Range<u64>),
    SetLen(u64),
    Run(u64),
    Flush,
}

/// Places near the ends of sectors and pages, where the edges are.
fn place() -> impl Strategy<Value = u64> {
    let near = (0..MAX_LEN / 512, -2_i64..3)
        .prop_map(|(sector, by)| (sector * 512).saturating_add_signed(by));
    prop_oneof![3 => near, 1 => 0..MAX_LEN, 1 => (0..MAX_LEN / 4096).prop_map(|page| page * 4096)]
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (place(), place()).prop_map(|(a, b)| a.min(b)..a.max(b))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => range().prop_map(Op::Read),
        4 => (range(), 1_u8..).prop_map(|(range, byte)| Op::Write(range, byte)),
        1 => (range(), 1_u8..).prop_map(|(range, byte)| Op::WriteVectored(range, byte)),
        2 => range().prop_map(Op::WriteZeroes),
        2 => range().prop_map(Op::Punch),
        1 => place().prop_map(Op::SetLen),
        1 => place().prop_map(Op::Run),
        1 => Just(Op::Flush),
    ]
}

fn apply(op: &Op, storage: &dyn Storage, model: &mut Vec<u8>) {
    let fixed = storage.growth() == Growth::Stale;
    let len = model.len() as u64;
    match op {
        Op::Read(range) => read(storage, model, range),
        Op::Write(range, _) | Op::WriteVectored(range, _) | Op::WriteZeroes(range)
            if fixed && range.end > len => {}
        Op::Write(range, byte) => {
            let bytes = pattern(range, *byte);
            storage.write_at(&bytes, range.start).unwrap();
            put(model, range, &bytes);
        }
        Op::WriteVectored(range, byte) => {
            let bytes = pattern(range, *byte);
            let (first, rest) = bytes.split_at(bytes.len() / 3);
            let mut first = first.to_vec();
            let first = match byte % 2 {
                0 => Piece::Own(&first),
                _ => Piece::Shared(SharedSlice::from(&mut first[..])),
            };
            storage
                .write_vectored_at(&[first, Piece::Own(&[]), Piece::Own(rest)], range.start)
                .unwrap();
            put(model, range, &bytes);
        }
        Op::WriteZeroes(range) => {
            storage.write_zeroes(range.clone()).unwrap();
            put(model, range, &vec![0; index(range).len()]);
        }
        Op::Punch(range) => {
            let inside = range.start..range.end.min(len);
            if storage.punch_hole(range.clone()).unwrap() && !inside.is_empty() {
                model[index(&inside)].fill(0);
            }
        }
        Op::SetLen(len) if fixed => {
            let refused = storage.set_len(*len).map_err(|error| error.kind());
            let same = *len == model.len() as u64;
            assert_eq!(refused, if same { Ok(()) } else { Err(ErrorKind::Unsupported) });
        }
        Op::SetLen(len) => {
            storage.set_len(*len).unwrap();
            model.resize(usize::try_from(*len).unwrap(), 0);
        }
        Op::Run(at) => run(storage, model, *at),
        Op::Flush => storage.flush().unwrap(),
    }
    assert_eq!(storage.len().unwrap(), model.len() as u64);
}

fn read(storage: &dyn Storage, model: &[u8], range: &Range<u64>) {
    let mut bytes = vec![0xee; index(range).len()];
    let result = storage.read_at(&mut bytes, range.start);
    match model.get(index(range)) {
        Some(want) => {
            result.unwrap();
            assert!(bytes == want, "wrong bytes in {range:?}");
        }
        None if range.is_empty() => result.unwrap(),
        None => assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof),
    }
    read_pieces(storage, model, range);
}

/// The same range into pieces of two kinds, which end anywhere or with a sector.
fn read_pieces(storage: &dyn Storage, model: &[u8], range: &Range<u64>) {
    let len = index(range).len();
    for cut in [len / 3, len / 2 / 512 * 512] {
        let mut bytes = vec![0xee; len];
        let (first, rest) = bytes.split_at_mut(cut);
        let mut pieces = [PieceMut::Shared(SharedSlice::from(first)), PieceMut::Own(rest)];
        let result = storage.read_vectored_at(&mut pieces, range.start);
        match model.get(index(range)) {
            Some(want) => {
                result.unwrap();
                assert!(bytes == want, "wrong bytes in {range:?}, cut at {cut}");
            }
            None if range.is_empty() => result.unwrap(),
            None => assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof),
        }
    }
}

fn run(storage: &dyn Storage, model: &[u8], at: u64) {
    let run = storage.run_at(at).unwrap();
    let len = model.len() as u64;
    assert!(run.len <= len.saturating_sub(at));
    assert_eq!(run.len == 0, at >= len, "a run is empty at the end only");
    if run.kind == RunKind::Hole {
        assert!(model[index(&(at..at + run.len))].iter().all(|&byte| byte == 0));
    }
}

fn put(model: &mut Vec<u8>, range: &Range<u64>, bytes: &[u8]) {
    if !range.is_empty() {
        model.resize(model.len().max(index(range).end), 0);
        model[index(range)].copy_from_slice(bytes);
    }
}

fn pattern(range: &Range<u64>, byte: u8) -> Vec<u8> {
    (range.clone()).map(|at| byte.wrapping_add((at % 251) as u8)).collect()
}

fn index(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// Runs lists of operations on fresh storages that `make` returns with their first bytes.
fn agrees<S: Storage>(make: impl Fn() -> (S, Vec<u8>)) {
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let outcome = runner.run(&vec(op(), 1..40), |ops| {
        let (storage, mut model) = make();
        for op in &ops {
            apply(op, &storage, &mut model);
        }
        assert!(contents(&storage) == model, "the final bytes differ");
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn memory_agrees_with_the_model() {
    agrees(|| (MemoryStorage::default(), Vec::new()));
    agrees(|| (MemoryStorage::device(vec![9; 30_000]), vec![9; 30_000]));
}

#[test]
fn files_agree_with_the_model() {
    for (folder, options) in
        [(on_disk(), BUFFERED), (on_disk(), DIRECT), (on_tmpfs(), BUFFERED), (on_tmpfs(), DIRECT)]
    {
        agrees(|| {
            let path = folder.path().join("image");
            let _ = std::fs::remove_file(&path);
            (FileStorage::create(&path, options).unwrap(), Vec::new())
        });
    }
}

#[test]
fn block_devices_agree_with_the_model() {
    for sector in [512, 4096] {
        let Some(device) = LoopDevice::attach(32_768, sector) else { return };
        for direct in [false, true] {
            agrees(|| {
                let storage = device.open(direct);
                let bytes = contents(&storage);
                (storage, bytes)
            });
        }
    }
}
