//! Storage that panics under a flush: what the flush had taken is in no file and in no list any more,
//! so nothing is acknowledged from then on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use qed_core::{
    GivenBacking, Image, ImageError, Layout, LockPolicy, ReadContext, ReadOnlyImage, RefuseBacking,
    ZeroMode,
};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, RequestKind, Storage};
use qed_spec::GuestOffset;

use crate::support::{Bytes, COMPAT, JOURNAL, new_storage_of, open, small_geometry};

const DISK: u64 = 6 << 20;

fn at(cluster: u64) -> GuestOffset {
    GuestOffset::new(cluster * 4096)
}

/// Lets the write or flush of the storage with this number panic, counted from now on.
fn panic_at(faulty: &Faulty, number: u64) {
    let seen = AtomicU64::new(0);
    faulty.fail_when(
        move |request| {
            let counts = matches!(request.kind, RequestKind::Write | RequestKind::Flush);
            assert!(
                !counts || seen.fetch_add(1, Ordering::Relaxed) != number,
                "a storage that panics"
            );
            false
        },
        Fault::Io,
        Repeat::Once,
    );
}

fn assert_writing_has_ended(image: Image, case: &str) {
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    for (what, result) in [
        ("write", image.write_at(&[2; 512], at(9))),
        ("flush", image.flush()),
        ("zeros", image.write_zeroes(at(0), 512, ZeroMode::IfNeeded)),
        ("maintain", image.maintain(now).map(drop)),
        ("maintain later", image.maintain(later).map(drop)),
        ("close", image.close()),
    ] {
        assert!(matches!(result, Err(ImageError::WritesStopped)), "{case}, {what}: {result:?}");
    }
}

// spec-test: QED-RW-07, QED-JRN-27
#[test]
fn after_a_flush_that_panicked_nothing_is_acknowledged() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        for is_backed in [false, true] {
            let gate = GivenBacking(is_backed.then(|| Arc::new(Bytes(vec![9; 4096])) as _));
            for number in 0.. {
                let case = format!("{layout:?}, backing: {is_backed}, request {number}");
                let storage = new_storage_of(layout, small_geometry(), DISK, is_backed);
                let faulty = Arc::new(Faulty::new(storage.clone()));
                let image = open(faulty.clone(), &gate);
                image.write_at(&[1; 512], at(0)).unwrap();
                panic_at(&faulty, number);
                let flushed = catch_unwind(AssertUnwindSafe(|| image.flush()));
                faulty.heal();
                if let Ok(flushed) = flushed {
                    flushed.unwrap();
                    assert!(number > 2, "{case}");
                    break;
                }
                assert_writing_has_ended(image, &case);
                // It is as if the machine had stopped there.
                let read = ReadContext::new(&gate, LockPolicy::None);
                ReadOnlyImage::open(storage, &read).unwrap();
            }
        }
    }
}

// spec-test: QED-RW-07
#[test]
fn whoever_waited_for_a_flush_that_panicked_is_told() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        for round in 0..50 {
            let storage = new_storage_of(layout, small_geometry(), DISK, false);
            let faulty = Arc::new(Faulty::new(storage));
            let image = open(faulty.clone(), &RefuseBacking);
            image.write_at(&[1; 512], at(0)).unwrap();
            panic_at(&faulty, round % 3);
            let together = Barrier::new(2);
            let flush = || {
                together.wait();
                catch_unwind(AssertUnwindSafe(|| image.flush())).map_err(drop)
            };
            let results = std::thread::scope(|scope| {
                [scope.spawn(flush), scope.spawn(flush)].map(|thread| thread.join().unwrap())
            });
            let case = format!("{layout:?}, round {round}: {results:?}");
            let panicked = results.iter().filter(|result| result.is_err()).count();
            let told = results.iter().flatten();
            let is_told = |result: &Result<(), _>| matches!(result, Err(ImageError::WritesStopped));
            assert!(panicked == 1 && told.into_iter().all(is_told), "{case}");
        }
    }
}

#[test]
fn an_image_that_a_panic_drops_is_closed_like_any_other() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        // Some of these find the ring full.
        for flushes in 0..12 {
            let storage = new_storage_of(layout, small_geometry(), DISK, false);
            let image = open(storage.clone(), &RefuseBacking);
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let image = image;
                for cluster in 0..=flushes {
                    image.write_at(&[1; 512], at(cluster)).unwrap();
                    if cluster < flushes {
                        image.flush().unwrap();
                    }
                }
                panic!("while an image is open");
            }));
            panicked.unwrap_err();
            assert_closed(&storage, flushes + 1);
        }
    }
}

/// Nothing is left to recover, and so many clusters have their data.
fn assert_closed(storage: &Arc<MemoryStorage>, clusters: u64) {
    let image = open(storage.clone() as Arc<dyn Storage>, &RefuseBacking);
    for cluster in 0..clusters {
        let mut data = [0; 512];
        image.read_at(&mut data, at(cluster)).unwrap();
        assert_eq!(data, [1; 512], "cluster {cluster} of {clusters}");
    }
}
