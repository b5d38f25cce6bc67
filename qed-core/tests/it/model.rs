//! Random operations agree with a flat vector of bytes, alone and from many threads.

mod threads;
#[cfg(feature = "test-utils")]
mod walls;

use std::sync::Arc;

use qed_core::{GivenBacking, Image, Layout, Shrink, VirtualDisk, ZeroMode};
use qed_io::{Piece, PieceMut, SharedSlice};
use qed_spec::{Geometry, GuestOffset};

use crate::support::{Bytes, JOURNAL, Random, new_storage_of, open};

const DISK: u64 = 3 << 20;

fn backing(random: &mut Random, len: u64) -> Arc<dyn VirtualDisk> {
    Arc::new(Bytes((0..len).map(|_| random.next().to_le_bytes()[7] | 1).collect()))
}

fn initial(gate: &GivenBacking, size: u64) -> Vec<u8> {
    let mut model = vec![0; usize::try_from(size).unwrap()];
    if let Some(backing) = &gate.0 {
        let len = model.len().min(usize::try_from(backing.len()).unwrap());
        backing.read_at(&mut model[..len], 0).unwrap();
    }
    model
}

fn read_all(disk: &dyn VirtualDisk) -> Vec<u8> {
    let mut all = vec![0xee; usize::try_from(disk.len()).unwrap()];
    disk.read_at(&mut all, 0).unwrap();
    all
}

/// Writes bytes from one slice, or from pieces of which others share the first.
fn write(image: &Image, mut bytes: Vec<u8>, at: u64, cut: u64) {
    if cut == 0 {
        return image.write_at(&bytes, GuestOffset::new(at)).unwrap();
    }
    let cut = bytes.len() - bytes.len() / usize::try_from(cut).unwrap();
    let (first, rest) = bytes.split_at_mut(cut);
    let pieces = [Piece::Shared(SharedSlice::from(first)), Piece::Own(rest)];
    image.write_vectored_at(&pieces, GuestOffset::new(at)).unwrap();
}

/// As [`write`], the other way.
fn read(image: &Image, len: usize, at: u64, cut: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    if cut == 0 {
        image.read_at(&mut bytes, GuestOffset::new(at)).unwrap();
        return bytes;
    }
    let (first, rest) = bytes.split_at_mut(len - len / usize::try_from(cut).unwrap());
    let (shared, last) = rest.split_at_mut(rest.len() / 2);
    let mut pieces = [
        PieceMut::Own(first),
        PieceMut::Shared(SharedSlice::from(shared)),
        PieceMut::Shared(SharedSlice::from(last)),
    ];
    image.read_vectored_at(&mut pieces, GuestOffset::new(at)).unwrap();
    bytes
}

fn random_range(random: &mut Random, size: u64) -> (u64, u64) {
    let len = match random.below(4) {
        0 => 1 + random.below(16),
        1 => 1 + random.below(9000),
        2 => 4096,
        _ => 1 + random.below(60_000),
    };
    let at = if random.below(3) == 0 { random.below(size) & !4095 } else { random.below(size) };
    (at, len.min(size - at))
}

// spec-test: QED-RW-01, QED-RW-02, QED-RW-03, QED-BACK-04
#[test]
fn random_operations_equal_the_model() {
    compare_with_the_model();
}

fn compare_with_the_model() {
    for seed in 1..=48 {
        let mut random = Random(seed * 0x9e37_79b9);
        let gate = match seed % 3 {
            0 => GivenBacking(None),
            1 => GivenBacking(Some(backing(&mut random, DISK - 5120))),
            _ => GivenBacking(Some(backing(&mut random, DISK + 9 * 512))),
        };
        let geometry = Geometry::new(4096 << (seed % 3), 1 << (seed % 3)).unwrap();
        let layout = if seed % 4 < 2 { Layout::Classic } else { JOURNAL };
        let storage = new_storage_of(layout, geometry, DISK, gate.0.is_some());
        let mut model = initial(&gate, DISK);
        let mut image = open(storage.clone(), &gate);
        for step in 0..120 {
            let size = image.image_size();
            let (at, len) = random_range(&mut random, size);
            let (start, end) = (at as usize, (at + len) as usize);
            match random.below(20) {
                0..9 => {
                    let byte = random.next().to_le_bytes()[7];
                    write(&image, vec![byte; end - start], at, random.below(3));
                    model[start..end].fill(byte);
                }
                9..12 => {
                    image.write_zeroes(GuestOffset::new(at), len, ZeroMode::IfNeeded).unwrap();
                    model[start..end].fill(0);
                }
                12..15 => {
                    let buf = read(&image, end - start, at, random.below(3));
                    assert!(buf == model[start..end], "seed {seed} step {step} read at {at:#x}");
                }
                15..17 => image.flush().unwrap(),
                17 => {
                    image.close().unwrap();
                    image = open(storage.clone(), &gate);
                }
                _ => {
                    let sectors = DISK / 1024 + random.below(DISK / 1024);
                    let new_size = sectors * 512;
                    image.resize(new_size, Shrink::Allow).unwrap();
                    model.resize(new_size as usize, 0);
                    assert!(read_all(&image) == model, "seed {seed} step {step} resize {new_size}");
                }
            }
        }
        assert!(read_all(&image) == model, "seed {seed} at the end");
        image.close().unwrap();
        assert!(read_all(&open(storage, &gate)) == model, "seed {seed} reopened");
    }
}
