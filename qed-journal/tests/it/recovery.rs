//! What recovery does with a journal that is as it should be.

use std::sync::Arc;

use qed_io::MemoryStorage;
use qed_journal::{Batch, Claim, Opened, Recovery, RecoveryError, TestImage};
use qed_spec::{HostCluster, JournalRecord};

use crate::support::{at_home, batch, clean, image, letters, records, reopened, shown};

fn recovery(image: &TestImage) -> Recovery {
    match image.journal().unwrap() {
        Opened::Dirty(recovery) => recovery,
        Opened::Clean(journal) => panic!("{journal:?}"),
    }
}

// spec-test: QED-JRN-22, QED-JRN-23, QED-JRN-24
#[test]
fn what_was_not_checkpointed_is_recovered() {
    let (recorder, image) = image(64);
    let journal = clean(&image);
    for value in 2..30 {
        journal.commit_batch(batch(&image, &[(value, 1, value), (0, 1, value)]), &image).unwrap();
    }
    drop(journal);
    let from = recorder.records().len();
    let again = reopened(&image);
    let recovery = recovery(&again);
    assert_eq!((recovery.commits(), recovery.blocks()), (28, 28));
    let mut seen = [0; 8 * 32];
    let at = again.slot(0);
    again.storage().read_at(&mut seen, at.get()).unwrap();
    recovery.overlay(1000).unwrap().patch(&mut seen, at);
    assert_eq!(letters(&recorder, from, 64), "", "a reader writes nothing");

    let epoch = again.setup().unwrap().epoch;
    let journal = again.recovered().unwrap();
    assert_ne!(again.setup().unwrap().epoch, epoch);
    let mut home = [0; 8 * 32];
    again.storage().read_at(&mut home, at.get()).unwrap();
    assert_eq!(seen, home, "a reader sees what recovery writes");
    assert_eq!(at_home(&again, 0), 29);
    assert!((2..30).all(|value| at_home(&again, value) == value));
    journal.commit_batch(batch(&again, &[(7, 1, 70)]), &again).unwrap();
    assert_eq!((shown(&again, &journal, 7), journal.usage().used_blocks), (70, 1));
}

// spec-test: QED-JRN-14, QED-JRN-22
#[test]
fn the_file_grows_to_the_length_of_the_last_commit() {
    let sized = |image: &TestImage, more| Batch {
        physical_size: image.physical_size(more),
        ..batch(image, &[(0, 1, 2)])
    };
    for (commits, at_crash, expected) in [
        (&[3_u64, 5][..], 9, 5),
        (&[3, 5], 4, 5),
        // In one log the size never falls.
        (&[8, 5], 0, 8),
    ] {
        let (_, image) = image(8);
        let journal = clean(&image);
        for more in commits {
            journal.commit_batch(sized(&image, *more), &image).unwrap();
        }
        let len = |more| image.physical_size(more).get() * 4096;
        image.storage().set_len(len(at_crash)).unwrap();
        let again = reopened(&image);
        let replayed = recovery(&again).replay().unwrap();
        assert_eq!(replayed.physical_size(), Some(image.physical_size(expected)));
        assert_eq!(image.storage().len().unwrap(), len(expected.max(at_crash)));
    }
}

// spec-test: QED-JRN-14
#[test]
fn after_a_checkpoint_the_size_may_fall() {
    let (_, image) = image(8);
    let journal = clean(&image);
    for more in [80, 5] {
        let size = image.physical_size(more);
        let batch = Batch { physical_size: size, ..batch(&image, &[(0, 1, 2)]) };
        journal.commit_batch(batch, &image).unwrap();
        assert_eq!(recovery(&reopened(&image)).physical_size(), Some(size));
        journal.checkpoint(&image).unwrap();
    }
}

#[test]
fn a_device_keeps_its_length_and_must_have_what_a_commit_asks_for() {
    let clusters = 4 + 8 + TestImage::TABLES + 20;
    let device =
        Arc::new(MemoryStorage::device(vec![0xee; usize::try_from(clusters * 4096).unwrap()]));
    let image = TestImage::create(device, 8).unwrap();
    let journal = clean(&image);
    let sized =
        |more| Batch { physical_size: image.physical_size(more), ..batch(&image, &[(0, 1, 2)]) };
    journal.commit_batch(sized(20), &image).unwrap();
    assert!(recovery(&reopened(&image)).replay().is_ok());
    journal.commit_batch(sized(21), &image).unwrap();
    assert!(reopened(&image).journal().is_err());
}

#[test]
fn an_overlay_is_as_large_as_its_reader_allows() {
    let (_, image) = image(64);
    let journal = clean(&image);
    journal.commit_batch(records(&image, 1000, 2), &image).unwrap();
    let recovery = recovery(&reopened(&image));
    assert_eq!(recovery.overlay(1000).unwrap().runs(), 1000);
    let refused = recovery.overlay(999).unwrap_err();
    assert!(matches!(refused, RecoveryError::OverlayTooLarge { max: 999 }), "{refused}");
}

// spec-test: QED-JRN-23
#[test]
fn the_caller_judges_every_claim_in_order() {
    let (_, image) = image(8);
    let journal = clean(&image);
    let free = JournalRecord::FreeRun {
        first: HostCluster::new(40).unwrap(),
        count: 3.try_into().unwrap(),
    };
    let mut first = batch(&image, &[(0, 1, 2), (1, 1, 1)]);
    first.records.push(free);
    journal.commit_batch(first.clone(), &image).unwrap();
    let second = batch(&image, &[(0, 1, 0)]);
    journal.commit_batch(second.clone(), &image).unwrap();
    let setup = image.setup().unwrap();
    let mut claims = Vec::new();
    let read = |claims: &mut Vec<Claim>, refuse: usize| {
        claims.clear();
        Recovery::read(image.storage().clone(), setup, |claim| {
            claims.push(claim);
            Ok(claims.len() != refuse)
        })
    };
    read(&mut claims, usize::MAX).unwrap();
    let mut expected = vec![Claim::PhysicalSize(image.physical_size(1000))];
    expected.extend(first.records.iter().chain(&second.records).copied().map(Claim::Record));
    assert_eq!(claims, expected);
    for refuse in 1..=expected.len() {
        let refused = read(&mut claims, refuse).unwrap_err();
        assert!(matches!(refused, RecoveryError::Corrupt { .. }), "{refused}");
        assert_eq!(claims.len(), refuse);
    }
    let failed =
        Recovery::read(image.storage().clone(), setup, |_| Err(std::io::ErrorKind::Other.into()));
    assert!(matches!(failed, Err(RecoveryError::Io { .. })));
    assert_eq!(at_home(&image, 0), 0, "reading wrote nothing");
}
