//! Storage that fails for good, or that fails and did it all the same: no panic, and nothing
//! acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use qed_core::{
    GivenBacking, Image, ImageError, LockPolicy, ReadContext, ReadOnlyImage, RefuseBacking, Shrink,
    ZeroMode,
};
use qed_io::{
    Fault, Faulty, MemoryStorage, Operation, Recorder, Repeat, Request, RequestKind, Storage,
};
use qed_spec::{Features, GuestOffset};

use crate::support::{Bytes, context, new_storage, open, small_geometry};

const DISK: u64 = 6 << 20;

/// What the guest was told: byte values by sector, and which of them a flush covered.
#[derive(Default)]
struct Guest {
    written: Vec<(u64, u8)>,
    flushed: usize,
}

/// Runs until the first error; the workload grows, shrinks, zeroes and closes.
fn work(
    storage: Arc<dyn Storage>,
    gate: &GivenBacking,
    guest: &mut Guest,
) -> Result<(), ImageError> {
    let Ok(image) = Image::open(storage, &context(gate)) else {
        return Ok(());
    };
    for round in 0..3_u8 {
        for sector in 0..6 {
            let at = (u64::from(round) * 301 + sector * 1777) * 512 % DISK;
            image.write_at(&[round + 1; 512], GuestOffset::new(at))?;
            guest.written.retain(|(sector, _)| *sector != at);
            guest.written.push((at, round + 1));
        }
        image.write_zeroes(GuestOffset::new(DISK / 2), 64 << 10, ZeroMode::IfNeeded)?;
        guest.written.retain(|(at, _)| !(DISK / 2..DISK / 2 + (64 << 10)).contains(at));
        guest.flushed = guest.flushed.min(guest.written.len());
        image.flush()?;
        guest.flushed = guest.written.len();
        drop(image.resize(DISK + u64::from(round) * 8192, Shrink::Refuse));
    }
    image.close()
}

fn verify(storage: Arc<MemoryStorage>, gate: &GivenBacking, guest: &Guest, case: &str) {
    let read = ReadContext::new(gate, LockPolicy::None);
    let image = ReadOnlyImage::open(storage, &read).unwrap_or_else(|e| panic!("{case}: {e}"));
    let in_doubt: Vec<u64> = guest.written[guest.flushed..].iter().map(|(at, _)| *at).collect();
    for (at, byte) in &guest.written[..guest.flushed] {
        let mut sector = [0xee; 512];
        image.read_at(&mut sector, GuestOffset::new(*at)).unwrap();
        assert!(sector == [*byte; 512] || in_doubt.contains(at), "{case}: sector {at:#x}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_every_request_from_one_on_fails() {
    for gate in
        [GivenBacking(None), GivenBacking(Some(Arc::new(Bytes(vec![9; DISK as usize - 512]))))]
    {
        for fault in [Fault::Io, Fault::Partial { bytes: 100 }] {
            for number in 0.. {
                let storage = new_storage(small_geometry(), DISK, gate.0.is_some());
                let faulty = Arc::new(Faulty::new(storage.clone()));
                faulty.fail_nth(number, fault, Repeat::Always);
                let mut guest = Guest::default();
                drop(work(faulty.clone(), &gate, &mut guest));
                if faulty.failures() == 0 {
                    assert!(number > 40, "the workload is longer than {number} requests");
                    break;
                }
                verify(storage, &gate, &guest, &format!("{number} {fault:?}"));
            }
        }
    }
}

#[test]
fn a_failed_flush_ends_all_writing_and_reading_goes_on() {
    let storage = new_storage(small_geometry(), DISK, false);
    let faulty = Arc::new(Faulty::new(storage));
    let image = open(faulty.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    faulty.fail_when(|request| request.kind == RequestKind::Flush, Fault::Io, Repeat::Once);
    assert!(matches!(image.flush(), Err(ImageError::Io { .. })));
    for error in [
        image.write_at(&[1; 512], GuestOffset::new(0)).unwrap_err(),
        image.write_zeroes(GuestOffset::new(0), 512, ZeroMode::IfNeeded).unwrap_err(),
        image.flush().unwrap_err(),
        image.request().prepare(GuestOffset::new(0), 512).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, ImageError::WritesStopped), "{error}");
    }
    image.read_at(&mut [0; 512], GuestOffset::new(0)).unwrap();
    image.close().unwrap_err();
}

#[test]
fn a_failed_table_write_is_tried_again_by_the_next_flush() {
    let storage = new_storage(small_geometry(), DISK, false);
    let faulty = Arc::new(Faulty::new(storage.clone()));
    let image = open(faulty.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    // The first L2 table lies behind the header and the L1 table of two clusters.
    let table = 3 * 4096..5 * 4096;
    let writes_table = move |request: &Request| request.touches(RequestKind::Write, &table);
    faulty.fail_when(writes_table, Fault::NoSpace, Repeat::Once);
    assert!(matches!(image.flush(), Err(ImageError::Io { .. })));
    image.flush().unwrap();
    drop(image);
    let again = open(storage, &RefuseBacking);
    let mut sector = [0; 512];
    again.read_at(&mut sector, GuestOffset::new(0)).unwrap();
    assert_eq!(sector, [1; 512]);
}

/// Lets the header write after the next `passed` ones reach the disk and be reported as failed.
fn fail_a_header_write(faulty: &Faulty, passed: u32) {
    let seen = AtomicU32::new(0);
    let is_the_one = move |request: &Request| {
        request.touches(RequestKind::Write, &(0..1))
            && seen.fetch_add(1, Ordering::Relaxed) == passed
    };
    faulty.fail_when(is_the_one, Fault::Partial { bytes: 512 }, Repeat::Once);
}

// spec-test: QED-CONS-02
#[test]
fn after_a_failed_unmark_the_mark_is_durable_before_the_next_table_write() {
    let recorder = Arc::new(Recorder::new(new_storage(small_geometry(), DISK, false)));
    let faulty = Arc::new(Faulty::new(recorder.clone()));
    let image = open(faulty.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    image.flush().unwrap();
    fail_a_header_write(&faulty, 0);
    image.flush().expect("what was written is durable");
    image.write_at(&[2; 512], GuestOffset::new(4096)).unwrap();
    image.flush().unwrap();
    let (mut in_file, mut durable) = (false, false);
    for record in recorder.records() {
        match record.operation {
            Operation::Flush => durable = in_file,
            Operation::Write { offset: 0, bytes } => {
                let features = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
                in_file = features & Features::NEED_CHECK.bits() != 0;
            }
            Operation::Write { offset, .. } if (4096..5 * 4096).contains(&offset) => {
                assert!(in_file && durable, "table write at {offset:#x}");
            }
            _ => {}
        }
    }
}

#[test]
fn what_is_flushed_after_a_failed_shrink_lies_inside_the_disk() {
    for backing in [false, true] {
        let gate = GivenBacking(backing.then(|| Arc::new(Bytes(vec![9; 4096])) as _));
        for passed in 0.. {
            let storage = new_storage(small_geometry(), DISK, backing);
            let faulty = Arc::new(Faulty::new(storage.clone()));
            let image = open(faulty.clone(), &gate);
            image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
            image.flush().unwrap();
            fail_a_header_write(&faulty, passed);
            if image.resize(DISK / 2, Shrink::Allow).is_ok() {
                assert_eq!(passed, if backing { 1 } else { 3 }, "header writes of a shrink");
                break;
            }
            assert_eq!(image.image_size(), DISK);
            image.write_at(&[2; 512], GuestOffset::new(DISK - 512)).unwrap();
            image.flush().unwrap();
            let read = ReadContext::new(&gate, LockPolicy::None);
            let after_a_crash = ReadOnlyImage::open(storage, &read).unwrap();
            assert_eq!(after_a_crash.image_size(), DISK, "header write {passed}");
        }
    }
}

/// Bytes of the file when `at..at + len` was written after a hundred tries that failed.
fn file_len_after_tries(fails: impl Fn(&Request) -> bool + Send + 'static, len: usize) -> u64 {
    let storage = new_storage(small_geometry(), DISK, false);
    let faulty = Arc::new(Faulty::new(storage.clone()));
    let image = open(faulty.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    faulty.fail_when(fails, Fault::NoSpace, Repeat::Always);
    let data = vec![2; len];
    for _ in 0..100 {
        image.write_at(&data, GuestOffset::new(0)).unwrap_err();
    }
    faulty.heal();
    image.write_at(&data, GuestOffset::new(0)).unwrap();
    let mut all = vec![0; len];
    image.read_at(&mut all, GuestOffset::new(0)).unwrap();
    assert!(all == data);
    image.close().unwrap();
    storage.len().unwrap()
}

#[test]
fn tries_that_fail_use_up_no_space() {
    // Header, L1 (2), L2 (2).
    let metadata = 5 * 4096;
    let growing = |request: &Request| request.kind == RequestKind::SetLen;
    let len = 5 << 20;
    // A second L2 table.
    assert_eq!(file_len_after_tries(growing, len), metadata + 2 * 4096 + len as u64);
    let second_cluster =
        move |request: &Request| request.touches(RequestKind::Write, &(metadata + 4096..u64::MAX));
    let len = 64 << 10;
    assert_eq!(file_len_after_tries(second_cluster, len), metadata + len as u64);
}
