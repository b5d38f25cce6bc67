//! An image that is closed while others still hold it: what is refused, what stays, what another program
//! finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use qed_core::{
    GivenBacking, Image, ImageError, Layout, LockPolicy, Prepared, ReadContext, ReadOnlyImage,
    RecoveryPolicy, WriteContext,
};
use qed_io::{Fault, Faulty, Repeat, RequestKind, Storage};
use qed_spec::{Features, GuestOffset};

use crate::support::{COMPAT, JOURNAL, new_storage_of, open, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 64 << 20;
const NOTHING: GivenBacking = GivenBacking(None);
const LAYOUTS: [Layout; 3] = [Layout::Classic, COMPAT, JOURNAL];

fn at(cluster: u64) -> GuestOffset {
    GuestOffset::new(cluster * CLUSTER)
}

#[track_caller]
fn assert_closed<T: std::fmt::Debug>(result: Result<T, ImageError>) {
    assert!(matches!(result, Err(ImageError::Closed)), "{result:?}");
}

/// Opens for writing without any recovery.
fn open_clean(storage: Arc<dyn Storage>) -> Image {
    let context = WriteContext::new(&NOTHING, LockPolicy::None, RecoveryPolicy::Refuse);
    Image::open(storage, &context).unwrap()
}

#[test]
fn requests_in_flight_get_no_space_behind_the_end_and_are_refused() {
    for layout in LAYOUTS {
        let storage = new_storage_of(layout, small_geometry(), DISK, false);
        let image = open(storage.clone(), &NOTHING);
        image.write_at(&[1; CLUSTER as usize], at(0)).unwrap();
        let (early, late) = (image.request(), image.request());
        let Prepared::Allocating(allocation) = early.prepare(at(1), CLUSTER).unwrap() else {
            panic!("cluster 1 is there")
        };
        image.close().unwrap();
        assert!(image.has_requests());
        let len = storage.len().unwrap();

        assert_closed(late.prepare(at(2), CLUSTER));
        storage.write_at(&[2; CLUSTER as usize], allocation.host().get()).unwrap();
        assert_closed(allocation.commit());
        assert_closed(image.write_at(&[3; 512], at(0)));
        assert_closed(image.flush());
        image.close().unwrap();
        let mut sector = [9; 512];
        image.read_at(&mut sector, at(0)).unwrap();
        assert_eq!(sector, [1; 512]);
        drop((early, late));
        assert!(!image.has_requests());
        drop(image);

        assert_eq!(storage.len().unwrap(), len, "nothing was written behind the end");
        let again = open_clean(storage);
        again.read_at(&mut sector, at(1)).unwrap();
        assert_eq!(sector, [0; 512], "{layout:?}: not committed");
    }
}

#[test]
fn a_close_that_failed_is_tried_again() {
    for layout in LAYOUTS {
        for kind in [RequestKind::Write, RequestKind::SetLen] {
            let storage = new_storage_of(layout, small_geometry(), DISK, false);
            let faulty = Arc::new(Faulty::new(storage.clone()));
            let image = open(faulty.clone(), &NOTHING);
            image.write_at(&[1; CLUSTER as usize], at(0)).unwrap();
            if kind == RequestKind::SetLen {
                image.flush().unwrap();
            }
            faulty.fail_when(move |request| request.kind == kind, Fault::NoSpace, Repeat::Always);
            let failed = image.close();
            faulty.heal();
            // A journal that cannot be written ends writing: nobody knows what it holds.
            if matches!(failed, Err(ImageError::Journal(_))) {
                continue;
            }
            failed.unwrap_err();
            image.write_at(&[2; 512], at(7)).unwrap();
            image.close().unwrap();
            let again = open_clean(storage);
            let mut sector = [9; 512];
            again.read_at(&mut sector, at(7)).unwrap();
            assert_eq!(sector, [2; 512], "{layout:?} {kind:?}");
        }
    }
}

#[test]
fn what_other_threads_flushed_before_a_close_is_there() {
    for (round, layout) in (0..8_u64).flat_map(|round| LAYOUTS.map(|layout| (round, layout))) {
        let storage = new_storage_of(layout, small_geometry(), DISK, false);
        let image = open(storage.clone(), &NOTHING);
        let is_under_way = AtomicBool::new(false);
        let flushed: Vec<u64> = thread::scope(|scope| {
            let write = |first: u64| {
                let (image, is_under_way) = (&image, &is_under_way);
                move || {
                    let write_and_flush = |step: u64| {
                        let written = image.write_at(&[7; 512], at(first + 4 * step));
                        is_under_way.store(step > round, Ordering::Release);
                        written.and_then(|()| image.flush())
                    };
                    (0..1000_u64).take_while(|step| write_and_flush(*step).is_ok()).count() as u64
                }
            };
            let writers = [0, 1, 2, 3].map(|first| scope.spawn(write(first)));
            while !is_under_way.load(Ordering::Acquire) {
                thread::yield_now();
            }
            image.close().unwrap();
            writers.map(|writer| writer.join().unwrap()).into()
        });
        let len = storage.len().unwrap();
        drop(image);
        assert_eq!(storage.len().unwrap(), len);
        let read = ReadContext::new(&NOTHING, LockPolicy::None);
        let again = ReadOnlyImage::open(storage.clone(), &read).unwrap();
        assert!(!again.header().features().contains(Features::NEED_CHECK));
        for (first, count) in (0..).zip(flushed) {
            for step in 0..count {
                let mut sector = [9; 512];
                again.read_at(&mut sector, at(first + 4 * step)).unwrap();
                assert_eq!(sector, [7; 512], "{layout:?}: cluster {} of {count}", first + 4 * step);
            }
        }
        open_clean(storage);
    }
}
