//! Every request of a workload fails once, or from then on: no panic, and after the failure every
//! commit that was acknowledged is found again.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use qed_io::{Fault, Faulty, MemoryStorage, Repeat, RequestKind, Storage};
use qed_journal::{Journal, JournalError, Owner, TailMove, TailMoved, TestImage};

use crate::support::{batch, clean, records, shown};

fn faulty() -> (Arc<MemoryStorage>, Arc<Faulty>) {
    let memory = Arc::new(MemoryStorage::default());
    TestImage::create(memory.clone(), 8).unwrap();
    let faulty = Arc::new(Faulty::new(memory.clone()));
    (memory, faulty)
}

/// Opens, commits 2, 3, ... to slot 0 with checkpoints among them and closes, going on after
/// errors that allow it. The last value that was acknowledged, and the last that was asked for.
fn work(storage: Arc<dyn Storage>) -> (u64, u64) {
    let (mut acknowledged, mut asked) = (0, 0);
    let Ok(image) = TestImage::open(storage) else { return (0, 0) };
    let Ok(journal) = image.recovered() else { return (0, 0) };
    for value in 2..18 {
        asked = value;
        let mut batch = records(&image, if value % 5 == 0 { 400 } else { 2 }, 300);
        batch.records.push(image.record(0, 1, value));
        if journal.commit_batch(batch, &image).is_ok() {
            acknowledged = value;
        }
        if value % 6 == 0 {
            let _ = journal.checkpoint(&image);
        }
    }
    let _ = journal.quiesce(&image);
    (acknowledged, asked)
}

/// What another program finds in slot 0.
fn found(memory: &Arc<MemoryStorage>) -> u64 {
    let image = TestImage::open(memory.clone()).unwrap();
    let journal = image.recovered().unwrap_or_else(|error| panic!("{error:?}"));
    shown(&image, &journal, 0)
}

// spec-test: QED-JRN-27
#[test]
fn each_request_fails_once_and_for_ever() {
    let (memory, counter) = faulty();
    assert_eq!(work(counter.clone()), (17, 17));
    assert_eq!(found(&memory), 17);
    for number in 0..counter.requests() {
        for (fault, repeat) in [
            (Fault::Io, Repeat::Once),
            (Fault::Io, Repeat::Always),
            (Fault::NoSpace, Repeat::Once),
            (Fault::Partial { bytes: 700 }, Repeat::Once),
        ] {
            let (memory, faulty) = faulty();
            faulty.fail_nth(number, fault, repeat);
            let (acknowledged, asked) = work(faulty);
            let found = found(&memory);
            let case = format!("{fault:?} {repeat:?} at {number}");
            assert!((acknowledged..=asked).contains(&found), "{case}: {acknowledged} {found}");
        }
    }
}

// spec-test: QED-JRN-27
#[test]
fn a_failed_flush_ends_all_commits() {
    let (_, faulty) = faulty();
    let image = TestImage::open(faulty.clone()).unwrap();
    let journal = clean(&image);
    journal.commit_batch(batch(&image, &[(0, 1, 5)]), &image).unwrap();
    faulty.fail_when(|request| request.kind == RequestKind::Flush, Fault::Io, Repeat::Once);
    let failed = journal.commit_batch(batch(&image, &[(0, 1, 6)]), &image).unwrap_err();
    assert!(failed.is_fatal(), "{failed}");
    let before = faulty.requests();
    for refused in [
        journal.commit_batch(batch(&image, &[(0, 1, 7)]), &image),
        journal.checkpoint(&image),
        journal.quiesce(&image),
    ] {
        assert!(matches!(refused, Err(JournalError::Failed)), "{refused:?}");
    }
    assert_eq!(faulty.requests(), before, "nothing is written any more");
    assert_eq!(shown(&image, &journal, 0), 5, "it still reads");
}

fn full(journal: &Journal, image: &TestImage) {
    for value in 2..10 {
        journal.commit_batch(batch(image, &[(0, 1, value)]), image).unwrap();
    }
    assert_eq!(journal.usage().used_blocks, 8);
}

// spec-test: QED-JRN-21
#[test]
fn tables_without_space_keep_a_full_ring_waiting_and_lose_nothing() {
    let (memory, faulty) = faulty();
    let image = TestImage::open(faulty.clone()).unwrap();
    let journal = clean(&image);
    full(&journal, &image);
    let tables = image.slot(0).get()..u64::MAX;
    faulty.fail_when(
        move |request| request.touches(RequestKind::Write, &tables),
        Fault::NoSpace,
        Repeat::Always,
    );
    let ticket = journal.submit(batch(&image, &[(0, 1, 50)])).unwrap();
    for _ in 0..2 {
        let failed = journal.commit(&ticket, &image).unwrap_err();
        assert!(matches!(failed, JournalError::Home { .. }) && !failed.is_fatal(), "{failed}");
        assert_eq!(shown(&image, &journal, 0), 9);
    }
    faulty.heal();
    journal.commit(&ticket, &image).unwrap();
    assert_eq!((shown(&image, &journal, 0), journal.usage().used_blocks), (50, 1));
    assert_eq!(found(&memory), 50);
}

/// An owner whose superblock write panics.
struct Panics<'a>(&'a TestImage);

impl Owner for Panics<'_> {
    fn set_active(&self) -> io::Result<()> {
        self.0.set_active()
    }

    fn clear_active(&self) -> io::Result<()> {
        self.0.clear_active()
    }

    fn move_tail(&self, _: TailMove) -> io::Result<TailMoved> {
        panic!("the owner has an error of its own")
    }
}

#[test]
fn an_owner_that_panics_leaves_a_journal_that_takes_no_commits() {
    let (_, faulty) = faulty();
    let image = TestImage::open(faulty).unwrap();
    let journal = clean(&image);
    full(&journal, &image);
    let commit = || journal.commit_batch(batch(&image, &[(0, 1, 50)]), &Panics(&image));
    assert!(catch_unwind(AssertUnwindSafe(commit)).is_err());
    let refused = journal.commit_batch(batch(&image, &[(0, 1, 51)]), &image);
    assert!(matches!(refused, Err(JournalError::Failed)), "{refused:?}");
    assert_eq!(shown(&image, &journal, 0), 9);
}
