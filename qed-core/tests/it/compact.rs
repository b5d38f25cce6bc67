//! Compaction: what lies where afterwards, and what requests beside it may do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qed_core::{
    CompactOptions, CompactStep, Compacted, Compaction, CreateOptions, DiscardMode, ExtentKind,
    Image, Layout, Prepared, RefuseBacking, WriteContext, create,
};
use qed_io::{Gate, MemoryStorage, RequestKind, Storage};
use qed_spec::{Geometry, GuestOffset};

use crate::support::{COMPAT, JOURNAL, Random, context, new_storage_of, open, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 64 << 20;
const CLUSTERS: u64 = DISK / CLUSTER;

fn at(cluster: u64) -> GuestOffset {
    GuestOffset::new(cluster * CLUSTER)
}

fn compact(image: &Image, options: CompactOptions) -> Compacted {
    let mut compaction = image.compact(options);
    loop {
        if let CompactStep::Done(done) = compaction.step().unwrap() {
            return done;
        }
    }
}

fn pattern(cluster: u64) -> [u8; CLUSTER as usize] {
    [(cluster % 251) as u8 + 1; CLUSTER as usize]
}

/// Data in every cluster whose number `keeps`, written in an order of its own, between others that
/// are discarded.
fn fragmented(layout: Layout, keeps: fn(u64) -> bool) -> (Arc<MemoryStorage>, Image) {
    let storage = new_storage_of(layout, small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    for index in 0..CLUSTERS {
        let cluster = index * 7919 % CLUSTERS;
        image.write_at(&pattern(cluster), at(cluster)).unwrap();
    }
    for cluster in (0..CLUSTERS).filter(|cluster| !keeps(*cluster)) {
        image.discard(at(cluster), CLUSTER).unwrap();
    }
    (storage, image)
}

fn check(image: &Image, keeps: fn(u64) -> bool) {
    let mut bytes = [0; CLUSTER as usize];
    for cluster in 0..CLUSTERS {
        image.read_at(&mut bytes, at(cluster)).unwrap();
        let expected = if keeps(cluster) { pattern(cluster) } else { [0; CLUSTER as usize] };
        assert!(bytes == expected, "cluster {cluster}");
    }
}

/// Runs of the guest's data in the file.
fn runs(image: &Image) -> u64 {
    let (mut runs, mut next) = (0, 0);
    for cluster in 0..CLUSTERS {
        if let ExtentKind::Data(host) = image.map(at(cluster), 1).unwrap().kind {
            runs += u64::from(host.get() != next);
            next = host.get() + CLUSTER;
        }
    }
    runs
}

// spec-test: QED-FREE-06, QED-FREE-09, QED-JRN-25
#[test]
fn the_end_comes_down_to_what_is_used() {
    let keeps = |cluster: u64| cluster % 2 == 1 || cluster / 4096 == 1;
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (storage, image) = fragmented(layout, keeps);
        let kept = (0..CLUSTERS).filter(|cluster| keeps(*cluster)).count() as u64;
        let before = image.space_usage().unwrap().end;
        let done = compact(&image, CompactOptions::default());
        assert_eq!((done.end_before, done.held_back), (before, Default::default()));
        let used = storage.len().unwrap();
        assert_eq!(done.end_after, used, "{layout:?}");
        check(&image, keeps);
        // Header area and L1 table, then data and 16 tables of two clusters.
        let header = image.header();
        let roots = header.fields().l1_table_offset.get() + 2 * CLUSTER;
        assert_eq!(used, roots + (kept + 2 * 16) * CLUSTER, "{layout:?}");
        let again = compact(&image, CompactOptions::default());
        assert_eq!((again.end_after, again.moved_bytes), (used, 0), "{layout:?}");
        // It goes on as ever, behind the cut.
        image.write_at(&pattern(0), at(0)).unwrap();
        image.discard(at(0), CLUSTER).unwrap();
        image.close().unwrap();
        let image = open(storage, &RefuseBacking);
        assert!(image.sweep().unwrap());
        check(&image, keeps);
    }
}

#[test]
fn data_comes_in_the_order_of_the_disk_where_that_is_asked_for() {
    let keeps = |cluster: u64| cluster % 3 != 1;
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (_storage, image) = fragmented(layout, keeps);
        let before = runs(&image);
        let done = compact(&image, CompactOptions { defragment: true });
        check(&image, keeps);
        let after = runs(&image);
        assert!(after * 50 < before, "{before} runs became {after}");
        assert!(done.end_after < done.end_before);
        let plain = {
            let (_storage, image) = fragmented(layout, keeps);
            compact(&image, CompactOptions::default()).end_after
        };
        assert_eq!(done.end_after, plain, "{layout:?}");
    }
}

// spec-test: QED-FREE-08
#[test]
fn a_write_goes_before_a_move() {
    let keeps = |cluster: u64| cluster % 2 == 1;
    let (_storage, image) = fragmented(COMPAT, keeps);
    let mut compaction = image.compact(CompactOptions::default());
    let mut written = Vec::new();
    for step in 0_u64.. {
        if matches!(compaction.step().unwrap(), CompactStep::Done(_)) {
            break;
        }
        // Between any two steps, so after the mark and before the copy, too.
        for cluster in (1 + 2 * (step % 16)..CLUSTERS).step_by(32 * 16) {
            image.write_at(&[0xfe; 512], at(cluster)).unwrap();
            written.push(cluster);
        }
    }
    assert!(!written.is_empty());
    let mut bytes = [0; CLUSTER as usize];
    for cluster in (1..CLUSTERS).step_by(2) {
        image.read_at(&mut bytes, at(cluster)).unwrap();
        let mut expected = pattern(cluster);
        if written.contains(&cluster) {
            expected[..512].fill(0xfe);
        }
        assert!(bytes == expected, "cluster {cluster}");
    }
}

/// Steps until it is known what is to move, before any of it is marked.
fn until_planned(compaction: &mut Compaction<&Image>) {
    while let CompactStep::GoesOn { to_move_bytes: 0, .. } = compaction.step().unwrap() {}
}

fn finish(mut compaction: Compaction<&Image>) {
    while !matches!(compaction.step().unwrap(), CompactStep::Done(_)) {}
}

// spec-test: QED-FREE-03
#[test]
fn a_move_waits_for_requests_of_before_it() {
    let keeps = |cluster: u64| cluster % 2 == 1;
    let (storage, image) = fragmented(COMPAT, keeps);
    let mut compaction = image.compact(CompactOptions::default());
    until_planned(&mut compaction);
    // They know where to write, and have not done so.
    let request = image.request();
    let found: Vec<_> = (1..CLUSTERS)
        .step_by(2)
        .map(|cluster| match request.prepare(at(cluster), CLUSTER).unwrap() {
            Prepared::InPlace { host, .. } => (cluster, host),
            Prepared::Allocating(_) => panic!("cluster {cluster} has data"),
        })
        .collect();
    for _ in 0..20 {
        compaction.step().unwrap();
    }
    for (cluster, host) in &found {
        storage.write_at(&pattern(cluster + 1), host.get()).unwrap();
    }
    drop(request);
    finish(compaction);
    let mut bytes = [0; CLUSTER as usize];
    for (cluster, _) in found {
        image.read_at(&mut bytes, at(cluster)).unwrap();
        assert!(bytes == pattern(cluster + 1), "cluster {cluster}");
    }
}

// spec-test: QED-FREE-08
#[test]
fn a_write_beside_its_copy_is_not_lost() {
    let keeps = |cluster: u64| cluster % 2 == 1;
    let (storage, image) = fragmented(COMPAT, keeps);
    image.close().unwrap();
    drop(image);
    let gate = Arc::new(Gate::new(storage));
    let image = open(gate.clone(), &RefuseBacking);
    let mut compaction = image.compact(CompactOptions::default());
    until_planned(&mut compaction);
    let held = gate.hold(|request| request.kind == RequestKind::Write);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| finish(compaction));
        // What is moved first was read, and its copy is on its way.
        held.wait_until_stopped();
        for cluster in (1..CLUSTERS).step_by(2) {
            image.write_at(&pattern(cluster + 1), at(cluster)).unwrap();
        }
        held.release();
        mover.join().unwrap();
    });
    let mut bytes = [0; CLUSTER as usize];
    for cluster in (1..CLUSTERS).step_by(2) {
        image.read_at(&mut bytes, at(cluster)).unwrap();
        assert!(bytes == pattern(cluster + 1), "cluster {cluster}");
    }
}

#[test]
fn threads_write_and_discard_beside_it() {
    for (layout, discard) in [
        (Layout::Classic, DiscardMode::Reuse),
        (COMPAT, DiscardMode::PassDown),
        (JOURNAL, DiscardMode::Reuse),
    ] {
        let storage = Arc::new(MemoryStorage::default());
        let geometry = Geometry::new(4096, 1).unwrap();
        create(&*storage, &CreateOptions { geometry, image_size: DISK, backing: None, layout })
            .unwrap();
        let context = WriteContext { discard, ..context(&RefuseBacking) };
        let image = Image::open(storage.clone(), &context).unwrap();
        let ends = AtomicBool::new(false);
        let models = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|number| {
                    let (image, ends) = (&image, &ends);
                    scope.spawn(move || work(image, number, ends))
                })
                .collect();
            let mut last = None;
            for round in 0..6 {
                last = Some(compact(&image, CompactOptions { defragment: round == 2 }));
            }
            ends.store(true, Ordering::Relaxed);
            assert!(last.is_some_and(|last| last.end_after <= last.end_before + DISK));
            workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        });
        let verify = |image: &Image| {
            for (number, model) in (0..).zip(&models) {
                for (index, byte) in (0..).zip(model) {
                    let mut bytes = [0; CLUSTER as usize];
                    image.read_at(&mut bytes, at(index * 4 + number)).unwrap();
                    assert!(bytes == [*byte; CLUSTER as usize], "{layout:?} {number} {index}");
                }
            }
        };
        verify(&image);
        assert!(image.sweep().unwrap());
        compact(&image, CompactOptions::default());
        image.close().unwrap();
        let image = open(storage, &RefuseBacking);
        verify(&image);
        assert!(image.sweep().unwrap(), "{layout:?}: nothing is named twice");
    }
}

/// Writes, discards and reads every fourth cluster until it is told to end; what each holds.
fn work(image: &Image, number: u64, ends: &AtomicBool) -> Vec<u8> {
    let mut random = Random(number + 1);
    let mut model = vec![0_u8; (CLUSTERS / 4) as usize];
    while !ends.load(Ordering::Relaxed) {
        let index = random.below(CLUSTERS / 4);
        let cluster = at(index * 4 + number);
        let byte = &mut model[index as usize];
        match random.below(16) {
            0..7 => {
                *byte = 1 + random.below(200) as u8;
                image.write_at(&[*byte; CLUSTER as usize], cluster).unwrap();
            }
            7..10 => {
                *byte = 0;
                image.discard(cluster, CLUSTER).unwrap();
            }
            10 if random.below(20) == 0 => image.flush().unwrap(),
            _ => {
                let mut bytes = [0; CLUSTER as usize];
                image.read_at(&mut bytes, cluster).unwrap();
                assert!(bytes == [*byte; CLUSTER as usize], "thread {number}, {cluster}");
            }
        }
    }
    model
}
