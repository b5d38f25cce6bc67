//! A repair cut off at any moment: after each flush, any subset of the writes since may be there.

use std::sync::Arc;

use qed_check::{CheckError, Repair, repair};
use qed_io::{Operation, Recorder, Storage};

use crate::image::{Random, TestImage, damaged};
use crate::oracle::assert_repaired;

/// States tried for each flush of a repair.
const STATES: u64 = 12;

#[test]
fn a_repair_can_be_cut_off_at_any_moment_and_done_again() {
    let mut states = 0;
    for seed in (0..4000).filter(|seed| damaged(*seed).check().corruptions() > 2).take(200) {
        let image = damaged(seed);
        let recorder = Recorder::new(Arc::clone(&image.storage()) as Arc<dyn Storage>);
        match repair(&recorder, Repair::All) {
            Err(CheckError::TooManyCopies { .. } | CheckError::TableOrData { .. }) => continue,
            other => other.map(drop).unwrap(),
        }
        let operations = recorder.records().into_iter().map(|record| record.operation).collect();
        states += crash_everywhere(&image, operations, seed);
    }
    assert!(states > 2000, "only {states} states");
}

fn crash_everywhere(image: &TestImage, operations: Vec<Operation>, seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut durable = image.bytes.clone();
    let mut states = 0;
    for epoch in operations.split(|operation| matches!(operation, Operation::Flush)) {
        for state in 0..STATES.min(1 << epoch.len().min(6)) {
            let mut bytes = durable.clone();
            for operation in epoch {
                // The first two states are none and all of the writes.
                if state == 1 || (state > 1 && random.below(2) == 0) {
                    operation.apply_to(&mut bytes);
                }
            }
            let storage = image.with_bytes(bytes).storage();
            repair(&*storage, Repair::All).unwrap();
            assert_repaired(image, &image.with_bytes(storage.to_vec()), seed);
            states += 1;
        }
        epoch.iter().for_each(|operation| operation.apply_to(&mut durable));
    }
    states
}
