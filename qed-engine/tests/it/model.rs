//! Random requests, many at a time, agree with a vector of bytes; so does the image afterwards.

use std::process::Command;
use std::sync::Arc;

use qed_core::{GivenBacking, LockPolicy, ReadContext, ReadOnlyImage};
use qed_engine::Engine;
use qed_spec::GuestOffset;
use tempfile::TempDir;

use crate::support::{Bytes, CLUSTER, DISK, finish, make, raw_file, read, write};

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Most often whole sectors of a few clusters, so that many requests meet in one.
    fn range(&mut self, around: u64) -> (u64, u64) {
        let near = around + self.below(20) * 4096;
        let (at, len) = match self.below(8) {
            0 => (self.below(DISK), 1 + self.below(3 * CLUSTER)),
            1 => (near + self.below(4096), 1 + self.below(9000)),
            2 => (near, CLUSTER),
            _ => (near, 4096),
        };
        let at = at % DISK;
        (at, len.min(DISK - at))
    }
}

fn bytes_below() -> Vec<u8> {
    (0..DISK - 5 * 512).map(|at| (at / 512 % 251) as u8 + 1).collect()
}

/// What may lie under an image: nothing, bytes that are in no file, a raw file that ends in a sector,
/// and a QED image over such a file with a part of its own.
fn gates(folder: &TempDir, direct: bool) -> [GivenBacking; 4] {
    let bytes = bytes_below();
    let raw = GivenBacking(Some(Arc::new(raw_file(folder, direct, &bytes[..bytes.len() - 100]))));
    let middle = make(direct, true, &raw);
    for at in [CLUSTER, 3 * CLUSTER, DISK - CLUSTER] {
        middle.image.write_at(&[0xaa; 2 * CLUSTER as usize / 3], GuestOffset::new(at)).unwrap();
    }
    middle.image.close().unwrap();
    let context = ReadContext::new(&raw, LockPolicy::None);
    let chain = GivenBacking(Some(Arc::new(ReadOnlyImage::open(middle.file, &context).unwrap())));
    [GivenBacking(None), GivenBacking(Some(Arc::new(Bytes(bytes)))), raw, chain]
}

fn run(direct: bool, is_journal: bool, gate: &GivenBacking, depth: u32) {
    let made = make(direct, is_journal, gate);
    let mut random = Random(u64::from(depth) + 17 * u64::from(direct));
    let mut model = vec![0; DISK as usize];
    if let Some(backing) = &gate.0 {
        backing.read_at(&mut model[..backing.len() as usize], 0).unwrap();
    }
    let mut engine = Engine::for_image(made.image.clone(), depth).unwrap();
    for round in 0..60_u64 {
        let around = random.below(DISK);
        let (mut ranges, mut reads) = (Vec::<(u64, u64)>::new(), Vec::new());
        for tag in 0..24 {
            let (at, len) = random.range(around);
            if ranges.iter().any(|(other, other_len)| at < other + other_len && *other < at + len) {
                continue;
            }
            ranges.push((at, len));
            let place = at as usize..(at + len) as usize;
            if random.below(3) == 0 {
                reads.push((tag, place));
                read(&mut engine, tag, at, len as usize);
            } else {
                model[place.clone()].fill((round * 24 + tag) as u8);
                write(&mut engine, tag, at, &model[place]);
            }
        }
        let served = finish(&mut engine);
        assert_eq!(served.len(), ranges.len());
        for (tag, place) in reads {
            let (_, bytes) = served.iter().find(|(number, _)| *number == tag).unwrap();
            assert!(*bytes == model[place], "read {tag} of round {round}");
        }
        if round % 7 == 0 {
            made.image.flush().unwrap();
        }
    }
    drop(engine);
    made.image.close().unwrap();
    let path = made.folder.path().join("disk.qed");
    let context = ReadContext::new(gate, LockPolicy::None);
    let image = Arc::new(ReadOnlyImage::open(made.file.clone(), &context).unwrap());
    let mut engine = Engine::for_reading(image.clone(), made.file, depth).unwrap();
    read(&mut engine, 0, 0, DISK as usize);
    assert!(finish(&mut engine)[0].1 == model);
    drop(engine);
    let mut bytes = vec![0; DISK as usize];
    image.read_at(&mut bytes, GuestOffset::new(0)).unwrap();
    assert!(bytes == model);
    let check = Command::new("qemu-img").args(["check", "-f", "qed", "-U"]).arg(path).output();
    let check = check.expect("qemu-img (Debian package qemu-utils) is there");
    assert!(check.status.success(), "{is_journal} {}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn random_requests_equal_the_model() {
    for direct in [false, true] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for gate in gates(&folder, direct) {
            for (is_journal, depth) in [(false, 1), (true, 1), (false, 3), (false, 32), (true, 32)]
            {
                run(direct, is_journal, &gate, depth);
            }
        }
    }
}
