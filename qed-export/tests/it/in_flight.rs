//! Reads and writes of memory that others share, many in flight, past the page cache.
#![allow(clippy::unwrap_used, reason = "a test that cannot begin fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use qed_core::{
    CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_engine::Direction;
use qed_export::{BlockDevice, DeviceError, InFlight, QedDisk, RawDisk, Transfer};
use qed_io::{Existing, FileStorage, ImageLock, LentMemory, NewFileOptions, SharedSlice, Storage};
use rustix::event::{PollFd, PollFlags, poll};

const SIZE: u64 = 1 << 20;
const BLOCK: usize = 12 << 10;

/// Memory as a guest's: it outlives everything, and each request has it in three pieces.
fn memory() -> SharedSlice<'static> {
    let bytes = vec![0_u8; BLOCK + 4096].leak();
    let start = bytes.as_ptr().align_offset(4096);
    SharedSlice::from(&mut bytes[start..start + BLOCK])
}

fn lent(memory: SharedSlice<'static>) -> LentMemory {
    LentMemory::from(vec![memory.part(0..4096), memory.part(4096..8192), memory.part(8192..BLOCK)])
}

fn disks(dir: &std::path::Path, direct: bool) -> [Box<dyn BlockDevice>; 2] {
    let options = NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct };
    let file = |name| Arc::new(FileStorage::create(dir.join(name), options).unwrap());
    let (raw, qed) = (file("raw"), file("qed"));
    raw.set_len(SIZE).unwrap();
    create(&*qed, &CreateOptions::new(SIZE)).unwrap();
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Image::open(qed, &context).unwrap();
    [Box::new(RawDisk::open(raw).unwrap()), Box::new(QedDisk::new(image))]
}

/// How all transfers that were started ended.
fn finish(in_flight: &mut InFlight) -> BTreeMap<u64, Result<(), DeviceError>> {
    let mut ended = BTreeMap::new();
    loop {
        while let Some(one) = in_flight.try_next().unwrap() {
            assert!(ended.insert(one.tag, one.result).is_none(), "{} ended twice", one.tag);
        }
        if in_flight.pending() == 0 {
            return ended;
        }
        let fd = in_flight.completion_fd().unwrap();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
    }
}

#[test]
fn what_many_writes_in_flight_wrote_many_reads_find() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for disk in disks(dir.path(), true) {
        let mut in_flight = disk.in_flight(8).unwrap().expect("the file is used past the cache");
        let tags = || (0..40_u64).map(|tag| (tag, tag * BLOCK as u64));
        for (tag, at) in tags() {
            let memory = memory();
            memory.fill(u8::try_from(tag).unwrap() + 1);
            let direction = Direction::Write;
            in_flight.start(Transfer { tag, direction, at, memory: lent(memory) });
        }
        let ended = finish(&mut in_flight);
        assert!(ended.len() == 40 && ended.values().all(Result::is_ok), "{ended:?}");

        let memories: Vec<_> = tags().map(|_| memory()).collect();
        for (tag, at) in tags() {
            let memory = lent(memories[usize::try_from(tag).unwrap()]);
            in_flight.start(Transfer { tag, direction: Direction::Read, at, memory });
        }
        let ended = finish(&mut in_flight);
        assert!(ended.len() == 40 && ended.values().all(Result::is_ok), "{ended:?}");
        for ((tag, at), memory) in tags().zip(memories) {
            let want = vec![u8::try_from(tag).unwrap() + 1; BLOCK];
            let (mut found, mut inline) = (vec![0; BLOCK], vec![0; BLOCK]);
            memory.copy_to(&mut found);
            disk.read_at(&mut inline, at).unwrap();
            assert!(found == want && inline == want, "{disk:?} {tag}");
        }
    }
}

#[test]
fn a_transfer_past_the_end_ends_with_an_error_and_changes_nothing() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for disk in disks(dir.path(), true) {
        let mut in_flight = disk.in_flight(8).unwrap().expect("the file is used past the cache");
        for (tag, at) in [(0, SIZE), (1, SIZE - 4096), (2, u64::MAX - 511)] {
            for direction in [Direction::Read, Direction::Write] {
                in_flight.start(Transfer { tag, direction, at, memory: lent(memory()) });
                let ended = finish(&mut in_flight);
                let result = &ended[&tag];
                assert!(matches!(result, Err(DeviceError::OutOfRange { .. })), "{result:?}");
            }
        }
        assert_eq!(disk.size(), SIZE);
    }
    assert_eq!(std::fs::metadata(dir.path().join("raw")).unwrap().len(), SIZE);
}

#[test]
fn a_disk_in_the_page_cache_needs_no_engine() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for disk in disks(dir.path(), false) {
        assert!(disk.in_flight(8).unwrap().is_none(), "{disk:?}");
    }
}
