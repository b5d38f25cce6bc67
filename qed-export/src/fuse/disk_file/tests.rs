//! The file of an image in memory, call by call.

use qed_core::{
    CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_io::{MemoryStorage, Storage};

use super::*;
use crate::image::QedDisk;

const CLUSTER: u64 = 64 << 10;
const SIZE: u64 = 64 * CLUSTER;
const LATER: Durability = Durability::AfterFlush;
const FIXED: FileOptions = FileOptions { is_growable: false, is_shared: false };
const GROWABLE: FileOptions = FileOptions { is_growable: true, is_shared: false };
const SHARED: FileOptions = FileOptions { is_growable: false, is_shared: true };

fn file(how: FileOptions) -> DiskFile {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    create(&*storage, &CreateOptions::new(SIZE)).unwrap();
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let disk = QedDisk::new(Image::open(storage, &context).unwrap());
    DiskFile::new(&Arc::new(Export::new("", Arc::new(disk))), how)
}

fn bytes(file: &DiskFile, at: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![1; len];
    let len = file.read(&mut buf, at).unwrap();
    buf.truncate(len);
    buf
}

fn number<T>(result: Result<T, FileError>) -> i32 {
    result.map_or_else(|error| error.errno().code(), |_| 0)
}

fn punch(file: &DiskFile, at: u64, len: u64) -> Result<(), FileError> {
    file.fallocate(at, len, Fallocate::of_flags(3).unwrap())
}

#[test]
fn flags_that_are_not_known_are_refused() {
    let known = [
        (0, RangeChange::Allocate, false),
        (1, RangeChange::Allocate, true),
        (3, RangeChange::PunchHole, true),
        (16, RangeChange::Zero, false),
        (17, RangeChange::Zero, true),
    ];
    for flags in -1..256 {
        let expected = known.iter().find(|(known, ..)| *known == flags);
        let expected =
            expected.map(|(_, change, keeps)| Fallocate { change: *change, keeps_size: *keeps });
        assert_eq!(Fallocate::of_flags(flags).ok(), expected, "{flags}");
        if expected.is_none() {
            assert_eq!(number(Fallocate::of_flags(flags)), Errno::EOPNOTSUPP.code());
        }
    }
}

#[test]
fn a_hole_reads_as_zeros_whatever_its_ends() {
    let edges = [0, 1, 511, 4096, CLUSTER - 1, CLUSTER, CLUSTER + 1, 3 * CLUSTER, 4 * CLUSTER - 1];
    for from in edges {
        for to in edges.into_iter().filter(|to| *to > from) {
            for flags in [3, 17] {
                let file = file(FIXED);
                let mut model = vec![7; usize::try_from(5 * CLUSTER).unwrap()];
                file.write(&model, 0, LATER).unwrap();
                let how = Fallocate::of_flags(flags).unwrap();
                file.fallocate(from, to - from, how).unwrap();
                model[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(0);
                assert!(bytes(&file, 0, model.len()) == model, "{from}..{to} {flags}");
            }
        }
    }
}

#[test]
fn a_range_is_cut_at_the_end_of_the_file_unless_it_is_to_grow() {
    for flags in [1, 3, 17] {
        let how = Fallocate::of_flags(flags).unwrap();
        let file = file(FIXED);
        file.write(&[7; 1024], SIZE - 1024, LATER).unwrap();
        assert_eq!(number(file.fallocate(SIZE - 512, 4096, how)), 0);
        assert_eq!(number(file.fallocate(SIZE + 512, 4096, how)), 0);
        let rest = if flags == 1 { 7 } else { 0 };
        assert_eq!(bytes(&file, SIZE - 1024, 1024), [[7; 512], [rest; 512]].concat(), "{flags}");
        assert_eq!(number(file.fallocate(0, 0, how)), Errno::EINVAL.code());
        assert_eq!(number(file.fallocate(1, u64::MAX, how)), Errno::EFBIG.code());
    }
    let allocate = Fallocate::of_flags(0).unwrap();
    assert_eq!(number(file(FIXED).fallocate(SIZE, 1, allocate)), Errno::ENOSPC.code());
    let growing = file(GROWABLE);
    assert_eq!(number(growing.fallocate(SIZE, 1, allocate)), 0);
    assert_eq!(growing.disk().size(), SIZE + 512);
}

#[test]
fn what_is_allocated_keeps_its_bytes_and_has_its_space() {
    let file = file(FIXED);
    file.write(&[7; 1000], CLUSTER + 5, LATER).unwrap();
    punch(&file, 3 * CLUSTER, CLUSTER).unwrap();
    let before = bytes(&file, 0, usize::try_from(SIZE).unwrap());
    file.fallocate(100, 4 * CLUSTER, Fallocate::of_flags(1).unwrap()).unwrap();
    assert!(bytes(&file, 0, before.len()) == before);
    assert_eq!(file.seek(0, Seek::Hole).unwrap(), 5 * CLUSTER);
    let shared = self::file(SHARED);
    let allocated = shared.fallocate(0, 1, Fallocate::of_flags(0).unwrap());
    assert_eq!(number(allocated), Errno::EOPNOTSUPP.code());
    punch(&shared, 0, 1).unwrap();
}

#[test]
fn reads_and_writes_end_with_the_file() {
    let file = file(FIXED);
    assert_eq!(file.write(&[7; 1024], SIZE - 512, LATER).unwrap(), 512);
    assert_eq!(bytes(&file, SIZE - 512, 1024), [7; 512]);
    for at in [SIZE, SIZE + 1, u64::MAX - 1] {
        assert_eq!(bytes(&file, at, 1), [0_u8; 0]);
        assert_eq!(number(file.write(&[7], at, LATER)), Errno::ENOSPC.code());
        assert_eq!(file.write(&[], at, LATER).ok(), Some(0));
    }
    assert_eq!(number(file.write(&[7; 2], u64::MAX, LATER)), Errno::EFBIG.code());
}

#[test]
fn only_a_growable_file_grows_and_none_shrinks() {
    let fixed = file(FIXED);
    for (size, expected) in [(SIZE, 0), (SIZE + 512, Errno::EPERM.code()), (0, Errno::EPERM.code())]
    {
        assert_eq!(number(fixed.truncate(size)), expected, "{size}");
    }
    let file = file(GROWABLE);
    assert_eq!(number(file.truncate(SIZE - 512)), Errno::EPERM.code());
    file.truncate(SIZE + 1).unwrap();
    assert_eq!(file.disk().size(), SIZE + 512, "whole sectors");
    assert_eq!(file.write(&[7; 1000], 2 * SIZE, LATER).unwrap(), 1000);
    assert_eq!(file.disk().size(), 2 * SIZE + 1024);
    assert_eq!(bytes(&file, SIZE, 512), [0; 512]);
    for far in [1 << 60, u64::MAX - 1] {
        assert_eq!(number(file.truncate(far)), Errno::EFBIG.code(), "{far}");
        assert_eq!(number(file.write(&[7], far, LATER)), Errno::EFBIG.code(), "{far}");
    }
}

#[test]
fn a_search_finds_each_run_and_then_nothing() {
    let file = file(FIXED);
    assert_eq!(number(file.seek(0, Seek::Data)), Errno::ENXIO.code());
    assert_eq!(file.seek(5, Seek::Hole).unwrap(), 5);
    file.write(&[7; 1], 2 * CLUSTER, LATER).unwrap();
    file.write(&[7; 1], SIZE - 1, LATER).unwrap();
    let walk = [
        (0, Seek::Data, 2 * CLUSTER),
        (2 * CLUSTER, Seek::Hole, 3 * CLUSTER),
        (2 * CLUSTER + 7, Seek::Data, 2 * CLUSTER + 7),
        (3 * CLUSTER, Seek::Data, SIZE - CLUSTER),
        (SIZE - CLUSTER, Seek::Hole, SIZE),
    ];
    for (at, what, found) in walk {
        assert_eq!(file.seek(at, what).unwrap(), found, "{at} {what:?}");
    }
    for at in [SIZE, u64::MAX] {
        assert_eq!(number(file.seek(at, Seek::Hole)), Errno::ENXIO.code());
    }
}

#[test]
fn a_file_that_is_closed_refuses_everything() {
    let file = file(GROWABLE);
    file.gate.shut();
    let results = [
        number(file.read(&mut [0], 0)),
        number(file.write(&[1], 0, LATER)),
        number(file.sync()),
        number(file.truncate(2 * SIZE)),
        number(punch(&file, 0, 1)),
        number(file.fallocate(0, 1, Fallocate::of_flags(0).unwrap())),
        number(file.seek(0, Seek::Data)),
    ];
    assert_eq!(results, [Errno::ESHUTDOWN.code(); 7]);
}
