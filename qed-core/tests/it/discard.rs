//! Space that the guest gives up: what it reads as, when it is used again, and what keeps it from that.

use std::sync::Arc;
use std::time::Instant;

use qed_core::{
    CompactOptions, CompactStep, CorruptTable, DiscardMode, ExtentKind, GivenBacking, Image,
    ImageError, Layout, RefuseBacking, Shrink, WriteContext, ZeroMode,
};
use qed_io::{MemoryStorage, Operation, Recorder, Storage};
use qed_spec::{GuestOffset, HostOffset};

use crate::support::{
    Bytes, COMPAT, JOURNAL, assert_holds, context, name_twice, new_storage_of, open, small_geometry,
};

const CLUSTER: u64 = 4096;
const DISK: u64 = 8 << 20;

fn at(cluster: u64) -> GuestOffset {
    GuestOffset::new(cluster * CLUSTER)
}

fn host(image: &Image, cluster: u64) -> Option<HostOffset> {
    match image.map(at(cluster), 1).unwrap().kind {
        ExtentKind::Data(host) => Some(host),
        ExtentKind::Zero | ExtentKind::Unallocated => None,
    }
}

/// Eight clusters of data from the first on.
fn filled(layout: Layout) -> (Arc<MemoryStorage>, Image) {
    let storage = new_storage_of(layout, small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[7; 8 * CLUSTER as usize], at(0)).unwrap();
    image.flush().unwrap();
    (storage, image)
}

fn reads(image: &Image, cluster: u64) -> u8 {
    let mut bytes = [0xee; CLUSTER as usize];
    image.read_at(&mut bytes, at(cluster)).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "cluster {cluster}");
    bytes[0]
}

// spec-test: QED-FREE-01, QED-FREE-02, QED-FREE-10
#[test]
fn space_is_used_again_after_a_flush_and_a_sweep() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (_storage, image) = filled(layout);
        let old = [2, 3, 4].map(|cluster| host(&image, cluster).unwrap());
        image.discard(at(2), 3 * CLUSTER).unwrap();
        assert_eq!([1, 2, 3, 4, 5].map(|cluster| reads(&image, cluster)), [7, 0, 0, 0, 7]);
        assert_eq!(image.space_usage().unwrap().free, None, "nobody has looked");
        // Neither before the sweep nor before the flush.
        image.write_at(&[1; CLUSTER as usize], at(100)).unwrap();
        assert!(image.sweep().unwrap());
        assert!(!old.contains(&host(&image, 100).unwrap()), "{layout:?}");
        assert_eq!(image.space_usage().unwrap().free, Some(3 * CLUSTER));
        image.discard(at(5), CLUSTER).unwrap();
        let unflushed = host(&image, 5);
        assert_eq!(unflushed, None);
        let bytes = [2; 4 * CLUSTER as usize];
        image.write_at(&bytes, at(101)).unwrap();
        let new = [101, 102, 103].map(|cluster| host(&image, cluster).unwrap());
        assert_eq!(new, old, "{layout:?}");
        let end = image.space_usage().unwrap().end;
        image.flush().unwrap();
        image.write_at(&bytes[..CLUSTER as usize], at(110)).unwrap();
        assert_eq!(image.space_usage().unwrap().end, end, "{layout:?}: out of cluster 5");
        image.close().unwrap();
    }
}

// spec-test: QED-FREE-02
#[test]
fn what_no_flush_has_un_named_is_not_used() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (_storage, image) = filled(layout);
        assert!(image.sweep().unwrap());
        let old = host(&image, 3).unwrap();
        image.discard(at(3), CLUSTER).unwrap();
        for cluster in 200..220 {
            image.write_at(&[1; CLUSTER as usize], at(cluster)).unwrap();
            assert_ne!(host(&image, cluster), Some(old), "{layout:?}");
        }
        image.flush().unwrap();
        image.write_at(&[1; CLUSTER as usize], at(300)).unwrap();
        assert_eq!(host(&image, 300), Some(old), "{layout:?}");
        image.close().unwrap();
    }
}

// spec-test: QED-FREE-03
#[test]
fn a_request_keeps_what_it_found_from_being_used() {
    let (storage, image) = filled(COMPAT);
    assert!(image.sweep().unwrap());
    let request = image.request();
    let ExtentKind::Data(found) = request.map(at(3), 1).unwrap().kind else { panic!("no data") };
    image.discard(at(3), CLUSTER).unwrap();
    image.flush().unwrap();
    image.write_at(&[1; CLUSTER as usize], at(100)).unwrap();
    assert_ne!(host(&image, 100), Some(found));
    let mut bytes = [0; CLUSTER as usize];
    storage.read_at(&mut bytes, found.get()).unwrap();
    assert_eq!(bytes, [7; CLUSTER as usize]);
    drop(request);
    image.maintain(Instant::now()).unwrap();
    image.write_at(&[1; CLUSTER as usize], at(101)).unwrap();
    assert_eq!(host(&image, 101), Some(found));
}

// spec-test: QED-RW-03
#[test]
fn parts_of_clusters_stay_and_a_backing_file_does_not_show() {
    let gate = GivenBacking(Some(Arc::new(Bytes(vec![9; 1 << 20]))));
    let storage = new_storage_of(COMPAT, small_geometry(), DISK - 512, true);
    let image = open(storage, &gate);
    image.write_at(&[7; 4 * CLUSTER as usize], at(0)).unwrap();
    image.discard(GuestOffset::new(100), 2 * CLUSTER).unwrap();
    assert_eq!([0, 1, 2, 4].map(|cluster| reads(&image, cluster)), [7, 0, 7, 9]);
    assert_eq!(image.map(at(1), 1).unwrap().kind, ExtentKind::Zero);
    // What only the backing file has reads as zeros, too.
    image.discard(at(4), CLUSTER).unwrap();
    assert_eq!(reads(&image, 4), 0);
    // The last cluster of the disk is partial, and whole.
    let last = DISK / CLUSTER - 1;
    image.write_at(&[7; 100], at(last)).unwrap();
    image.discard(at(last), CLUSTER - 512).unwrap();
    assert_eq!(host(&image, last), None);
    // A write-zeroes takes the parts at both ends, too.
    image.write_at(&[7; 3 * CLUSTER as usize], at(0)).unwrap();
    image.write_zeroes(GuestOffset::new(100), 2 * CLUSTER, ZeroMode::Unmap).unwrap();
    let mut bytes = vec![1; 3 * CLUSTER as usize];
    image.read_at(&mut bytes, at(0)).unwrap();
    let expected = |index| if (100..100 + 2 * CLUSTER as usize).contains(&index) { 0 } else { 7 };
    assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == expected(index)));
    assert!(host(&image, 0).is_some() && host(&image, 1).is_none());
}

#[test]
fn discards_are_ignored_where_that_was_asked_for() {
    let (storage, image) = filled(COMPAT);
    image.close().unwrap();
    let context = WriteContext { discard: DiscardMode::Ignore, ..context(&RefuseBacking) };
    let image = Image::open(storage, &context).unwrap();
    image.discard(at(0), DISK).unwrap();
    assert_eq!(reads(&image, 3), 7);
    image.write_zeroes(at(3), CLUSTER, ZeroMode::Unmap).unwrap();
    assert_eq!((reads(&image, 3), host(&image, 3).is_some()), (0, true));
}

// spec-test: QED-FREE-04, QED-FREE-10
#[test]
fn holes_are_punched_after_the_flush_and_a_sweep() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (storage, image) = filled(layout);
        image.close().unwrap();
        let recorder = Arc::new(Recorder::new(storage));
        let context = WriteContext { discard: DiscardMode::PassDown, ..context(&RefuseBacking) };
        let image = Image::open(recorder.clone(), &context).unwrap();
        let old = host(&image, 2).unwrap().get();
        let punched = || {
            let records = recorder.records();
            let punch = Operation::Discard(old..old + 3 * CLUSTER);
            records.iter().filter(|record| record.operation == punch).count()
        };
        image.discard(at(2), 3 * CLUSTER).unwrap();
        image.flush().unwrap();
        assert_eq!(punched(), 0, "no sweep has said that nothing else names them");
        image.maintain(Instant::now()).unwrap();
        while punched() == 0 {
            assert!(image.maintain(Instant::now()).unwrap().is_some(), "{layout:?}");
        }
        image.write_at(&[1; CLUSTER as usize], at(100)).unwrap();
        assert_eq!(host(&image, 100).map(HostOffset::get), Some(old));
        image.close().unwrap();
    }
}

// spec-test: QED-FREE-10
#[test]
fn a_discard_of_one_of_two_names_destroys_nothing() {
    for discard in [DiscardMode::Reuse, DiscardMode::PassDown] {
        let (storage, image) = filled(Layout::Classic);
        image.close().unwrap();
        let twice = name_twice(&storage);
        let context = WriteContext { discard, ..context(&RefuseBacking) };
        let image = Image::open(storage.clone(), &context).unwrap();
        image.discard(at(0), CLUSTER).unwrap();
        image.flush().unwrap();
        let found = image.sweep();
        let Err(ImageError::Corrupt(CorruptTable::L2Shared { l2, .. })) = found else {
            panic!("{found:?}");
        };
        assert_eq!(l2.get(), 700, "the name that is left");
        assert!(image.space_usage().unwrap().finding.is_some());
        // The name that was found is the only one by now, and the finding stays all the same.
        let mut compaction = image.compact(CompactOptions::default());
        let compacted = loop {
            match compaction.step() {
                Ok(CompactStep::GoesOn { .. }) => {}
                Ok(CompactStep::Done(_)) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        assert!(matches!(compacted, Err(ImageError::Corrupt(_))), "{compacted:?}");
        drop(compaction);
        for cluster in 900..1000 {
            image.write_at(&[1; CLUSTER as usize], at(cluster)).unwrap();
            image.flush().unwrap();
            image.maintain(Instant::now()).unwrap();
        }
        image.close().unwrap();
        // It is an error to read now, and there for a repair.
        assert_holds(&storage, twice, 7);
    }
}

// spec-test: QED-FREE-09
#[test]
fn a_free_tail_is_cut_off_by_the_close() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (storage, image) = filled(layout);
        image.discard(at(4), 4 * CLUSTER).unwrap();
        assert!(image.sweep().unwrap());
        let end = host(&image, 3).unwrap().get() + CLUSTER;
        image.close().unwrap();
        assert_eq!(storage.len().unwrap(), end, "{layout:?}");
    }
}

// spec-test: QED-SIZE-02
#[test]
fn what_a_shrink_cuts_off_in_the_middle_is_used_again() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (_storage, image) = filled(layout);
        image.write_at(&[8; CLUSTER as usize], at(1500)).unwrap();
        image.write_at(&[9; CLUSTER as usize], at(20)).unwrap();
        let [gone, last] = [1500, 20].map(|cluster| host(&image, cluster).unwrap());
        assert!(gone < last);
        image.resize(DISK / 2, Shrink::Allow).unwrap();
        assert!(image.sweep().unwrap());
        let end = image.space_usage().unwrap().end;
        // The table of the other half was two clusters.
        image.write_at(&[1; 3 * CLUSTER as usize], at(30)).unwrap();
        assert_eq!(image.space_usage().unwrap().end, end, "{layout:?}");
        assert_eq!([3, 20, 30, 32].map(|cluster| reads(&image, cluster)), [7, 9, 1, 1]);
        image.close().unwrap();
    }
}
