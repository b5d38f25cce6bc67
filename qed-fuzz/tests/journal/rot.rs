//! Blocks that were durable and are damaged: told from a tail that a crash tore off.

use std::sync::Arc;

use qed_fuzz::{SparseContent, SparseStorage};
use qed_io::Storage;

use crate::mutant::Mutant;
use crate::session::{Session, Tables, read_only};
use crate::workload::Set;

/// Commits of one block each, in blocks 1 to this one of the ring.
const COMMITS: u64 = 5;

/// An image whose journal holds the commits, and its tables.
fn journaled(mutant: Mutant) -> (SparseContent, Tables) {
    let disk = Arc::new(SparseStorage::new(SparseContent::default()));
    qed_journal::TestImage::create(disk.clone(), 8).unwrap();
    let session = Session::open(disk.clone(), mutant).unwrap();
    for value in 1..=COMMITS {
        session.commit(&[Set { slot: value * 7, count: 2, value: value + 10 }]).unwrap();
    }
    let tables = session.tables().unwrap();
    (disk.content(), tables)
}

/// Damages each block but the last in turn; in how many cases the image opened and had lost
/// something.
fn lost_silently(mutant: Mutant) -> usize {
    let (content, tables) = journaled(mutant);
    let lost = |block: &u64| {
        let mut content = content.clone();
        content.rot(16384 + block * 4096 + 70);
        let disk: Arc<dyn Storage> = Arc::new(SparseStorage::new(content));
        read_only(disk, mutant).is_ok_and(|(found, _)| found != tables)
    };
    (1..COMMITS).filter(lost).count()
}

// spec-test: QED-JRN-12
#[test]
fn a_damaged_block_that_was_durable_is_no_torn_tail() {
    assert_eq!(lost_silently(Mutant::None), 0);
    assert!(lost_silently(Mutant::NothingStable) > 0, "the mutant loses nothing");
}
