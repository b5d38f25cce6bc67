//! A storage that knows of holes: where it says there are some makes no difference.

use qed_check::{CheckError, CheckOptions, Repair, check, repair};

use crate::image::damaged;
use crate::watched::Watched;

#[test]
fn a_check_finds_the_same_where_the_storage_knows_of_holes() {
    let mut options = CheckOptions::default();
    options.findings_limit = usize::MAX;
    for seed in 0..500 {
        let image = damaged(seed);
        let report = check(&Watched::with_holes(image.storage()), &options).unwrap();
        assert_eq!(report, image.check(), "seed {seed}");
    }
}

#[test]
fn a_repair_writes_the_same_image_where_the_storage_knows_of_holes() {
    let mut copied = 0;
    for seed in 0..500 {
        let image = damaged(seed);
        let (plain, holey) = (image.storage(), Watched::with_holes(image.storage()));
        let (mut expected, mut found) = (repair(&*plain, Repair::All), repair(&holey, Repair::All));
        match (&mut expected, &mut found) {
            (Ok(expected), Ok(found)) => {
                // A hole takes no space that could be given back.
                let punched = std::mem::take(&mut expected.repaired.punched_bytes);
                assert!(std::mem::take(&mut found.repaired.punched_bytes) <= punched);
                assert_eq!(found, expected, "seed {seed}");
            }
            (Err(CheckError::TooManyCopies { .. }), Err(CheckError::TooManyCopies { .. }))
            | (Err(CheckError::TableOrData { .. }), Err(CheckError::TableOrData { .. })) => {}
            _ => panic!("seed {seed}: {found:?}, not {expected:?}"),
        }
        let (expected, found) = (plain.to_vec(), holey.memory.to_vec());
        assert!(found == expected, "seed {seed}: the images differ");
        copied += u64::from(found.len() > image.bytes.len());
    }
    assert!(copied > 50, "only {copied} repairs made copies");
}
