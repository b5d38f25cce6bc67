//! What comes between two steps of what is done about space: a sweep that runs, a punch that is under
//! way, a resize, another compaction.

use std::sync::Arc;
use std::time::Instant;

use qed_core::{
    CompactOptions, CompactStep, Compaction, CorruptTable, DiscardMode, ExtentKind, Image,
    ImageError, Layout, RefuseBacking, Shrink, WriteContext,
};
use qed_io::{Fault, Faulty, Gate, Repeat, RequestKind};
use qed_spec::{GuestOffset, HostOffset};

use crate::support::{
    COMPAT, assert_holds, context, name_twice, new_storage_of, open, small_geometry,
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

fn reads(image: &Image, cluster: u64) -> u8 {
    let mut bytes = [0; CLUSTER as usize];
    image.read_at(&mut bytes, at(cluster)).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "cluster {cluster}");
    bytes[0]
}

fn write(image: &Image, cluster: u64, count: u64, byte: u8) {
    image.write_at(&vec![byte; (count * CLUSTER) as usize], at(cluster)).unwrap();
}

// spec-test: QED-FREE-10
#[test]
fn a_name_that_goes_while_the_first_sweep_runs_is_not_taken_for_the_only_one() {
    let storage = new_storage_of(Layout::Classic, small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 0, 8, 7);
    image.close().unwrap();
    let twice = name_twice(&storage);
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 100, 1, 1);
    image.flush().unwrap();
    let request = image.request();
    assert!(image.maintain(Instant::now()).unwrap().is_some(), "a sweep waits for the request");
    image.discard(at(0), CLUSTER).unwrap();
    drop(request);
    image.flush().unwrap();
    let found = image.sweep();
    let Err(ImageError::Corrupt(CorruptTable::L2Shared { l2, .. })) = found else {
        panic!("{found:?}");
    };
    assert_eq!(l2.get(), 700);
    for cluster in 101..140 {
        write(&image, cluster, 1, 2);
    }
    image.close().unwrap();
    assert_holds(&storage, twice, 7);
}

#[test]
fn what_goes_while_the_first_sweep_runs_is_free_after_the_second() {
    let storage = new_storage_of(COMPAT, small_geometry(), DISK, false);
    let image = open(storage, &RefuseBacking);
    write(&image, 0, 8, 7);
    let old = host(&image, 3).unwrap();
    let request = image.request();
    image.maintain(Instant::now()).unwrap();
    image.discard(at(3), CLUSTER).unwrap();
    drop(request);
    image.flush().unwrap();
    while image.maintain(Instant::now()).unwrap().is_some()
        && image.space_usage().unwrap().free.is_none()
    {}
    while image.maintain(Instant::now()).unwrap().is_some_and(|due| due < Instant::now() + SOON) {}
    write(&image, 100, 1, 1);
    assert_eq!(host(&image, 100), Some(old));
}

#[test]
fn what_goes_beside_a_first_sweep_that_does_not_end_is_free_once() {
    for discard in [DiscardMode::Reuse, DiscardMode::PassDown] {
        let storage = new_storage_of(COMPAT, small_geometry(), DISK, false);
        let context = WriteContext { discard, ..context(&RefuseBacking) };
        let image = Image::open(storage, &context).unwrap();
        write(&image, 0, 8, 7);
        let old = host(&image, 3).unwrap();
        let request = image.request();
        image.maintain(Instant::now()).unwrap();
        image.discard(at(3), CLUSTER).unwrap();
        drop(request);
        image.flush().unwrap();
        // Ends the sweep without a result.
        image.resize(2 * DISK, Shrink::Refuse).unwrap();
        assert!(image.sweep().unwrap());
        assert_eq!(image.space_usage().unwrap().free, Some(CLUSTER), "{discard:?}");
        write(&image, 100, 1, 1);
        assert_eq!(host(&image, 100), Some(old), "{discard:?}");
        assert_eq!(image.space_usage().unwrap().free, Some(0), "{discard:?}");
    }
}

/// Sooner than any flush is due.
const SOON: std::time::Duration = std::time::Duration::from_secs(1);

// spec-test: QED-FREE-08
#[test]
fn a_move_does_not_take_the_mark_of_another_for_its_own() {
    const CLUSTERS: u64 = 4096;
    let storage = new_storage_of(COMPAT, small_geometry(), 16 << 20, false);
    let image = open(storage.clone(), &RefuseBacking);
    for index in 0..CLUSTERS {
        let cluster = index * 7919 % CLUSTERS;
        write(&image, cluster, 1, (cluster % 100) as u8 + 1);
    }
    (0..CLUSTERS).step_by(2).for_each(|cluster| image.discard(at(cluster), CLUSTER).unwrap());
    image.close().unwrap();
    let gate = Arc::new(Gate::new(storage));
    let image = open(gate.clone(), &RefuseBacking);
    let planned = |compaction: &mut Compaction<&Image>| {
        while let CompactStep::GoesOn { to_move_bytes: 0, .. } = compaction.step().unwrap() {}
    };
    let [mut one, mut two] = [(); 2].map(|()| image.compact(CompactOptions::default()));
    planned(&mut one);
    planned(&mut two);
    let held = gate.hold(|request| request.kind == RequestKind::Write);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| while !matches!(one.step().unwrap(), CompactStep::Done(_)) {});
        held.wait_until_stopped();
        (1..CLUSTERS).step_by(2).for_each(|cluster| write(&image, cluster, 1, 200));
        // Marks the same clusters.
        two.step().unwrap();
        held.release();
        mover.join().unwrap();
    });
    let lost: Vec<_> = (1..CLUSTERS).step_by(2).filter(|it| reads(&image, *it) != 200).collect();
    assert!(lost.is_empty(), "lost writes: {lost:?}");
}

// spec-test: QED-FREE-04
#[test]
fn a_resize_waits_for_a_punch() {
    let memory = new_storage_of(COMPAT, small_geometry(), DISK, false);
    let gate = Arc::new(Gate::new(memory));
    let context = WriteContext { discard: DiscardMode::PassDown, ..context(&RefuseBacking) };
    let image = Image::open(gate.clone(), &context).unwrap();
    write(&image, 0, 8, 7);
    write(&image, 1500, 4, 8);
    image.flush().unwrap();
    assert!(image.sweep().unwrap());
    image.discard(at(1500), 4 * CLUSTER).unwrap();
    let held = gate.hold(|request| request.kind == RequestKind::Discard);
    std::thread::scope(|scope| {
        let flusher = scope.spawn(|| image.flush().unwrap());
        held.wait_until_stopped();
        assert!(image.has_requests(), "the lock must not be given back, either");
        let resizer = scope.spawn(|| image.resize(DISK / 2, Shrink::Allow).unwrap());
        // It has shut the requests out when none begins any more.
        while image.try_request().is_some() {}
        assert!(!resizer.is_finished());
        held.release();
        flusher.join().unwrap();
        resizer.join().unwrap();
    });
    write(&image, 20, 8, 9);
    image.flush().unwrap();
    write(&image, 40, 8, 5);
    let bytes: Vec<_> = (20..28).chain(40..48).map(|cluster| reads(&image, cluster)).collect();
    assert_eq!(bytes, [[9; 8], [5; 8]].concat());
}

// spec-test: QED-FREE-02
#[test]
fn what_a_shrink_that_failed_un_named_is_flushed_before_it_is_used() {
    let memory = new_storage_of(Layout::Classic, small_geometry(), DISK, false);
    let storage = Arc::new(Faulty::new(memory));
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 0, 8, 7);
    write(&image, 900, 2, 8);
    let cut_off = host(&image, 900).unwrap();
    write(&image, 10, 1, 9);
    image.flush().unwrap();
    let table = 3 * CLUSTER..5 * CLUSTER;
    let inside = table.clone();
    storage.fail_when(
        move |request| request.touches(RequestKind::Write, &inside),
        Fault::Io,
        Repeat::Always,
    );
    image.resize(800 * CLUSTER, Shrink::Allow).unwrap_err();
    image.sweep().unwrap_err();
    write(&image, 11, 4, 1);
    let others = (11..15).map(|cluster| host(&image, cluster).unwrap());
    assert!(!others.into_iter().any(|other| other == cut_off), "the file names it yet");
    storage.heal();
    image.resize(800 * CLUSTER, Shrink::Allow).unwrap();
    assert!(image.sweep().unwrap());
    write(&image, 20, 2, 1);
    assert_eq!(host(&image, 20), Some(cut_off));
}
