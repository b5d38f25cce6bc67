//! The overlay beside a map of single slots.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use qed_spec::{Geometry, HostCluster, JournalRecord};

use super::*;

/// Slots that the cases are about, from byte 4096 on.
const SLOTS: u64 = 64;
const START: u64 = 4096;

fn geometry() -> Geometry {
    Geometry::new(4096, 1).expect("legal")
}

fn record(slot: u64, count: u32, value: u64) -> JournalRecord {
    let at = HostOffset::new(START + slot * SLOT_LEN_BYTES);
    let count = NonZeroU32::new(count).expect("not 0");
    match HostCluster::new(value.saturating_sub(1)) {
        Some(first) => JournalRecord::L2SetRun { at, count, first },
        None if value == 1 => JournalRecord::L2ZeroRun { at, count },
        None => JournalRecord::L2ClearRun { at, count },
    }
}

/// Sets each in turn; what is read and asked afterwards is what single slots would say.
#[track_caller]
fn check(sets: &[(u64, u32, u64)]) -> Overlay {
    let mut overlay = Overlay::default();
    let mut model = BTreeMap::new();
    for &(slot, count, value) in sets {
        let slots = record(slot, count, value).slots(geometry()).expect("sets slots");
        overlay.set(&slots);
        for index in 0..u64::from(count) {
            model.insert(slot + index, slots.first() + index * slots.step());
        }
        for from in 0..SLOTS {
            for to in from + 1..=SLOTS {
                assert_same(&overlay, &model, from, to);
            }
        }
    }
    overlay
}

#[track_caller]
fn assert_same(overlay: &Overlay, model: &BTreeMap<u64, u64>, from: u64, to: u64) {
    const NONE: u64 = 0xdead_beef_dead_beef;
    let at = START + from * SLOT_LEN_BYTES;
    let mut bytes: Vec<u8> = (from..to).flat_map(|_| NONE.to_le_bytes()).collect();
    overlay.patch(&mut bytes, HostOffset::new(at));
    let expected: Vec<u8> = (from..to)
        .flat_map(|slot| model.get(&slot).copied().unwrap_or(NONE).to_le_bytes())
        .collect();
    assert_eq!(bytes, expected, "slots {from}..{to}");
    let end = START + to * SLOT_LEN_BYTES;
    let covered = (from..to).all(|slot| model.contains_key(&slot));
    assert_eq!(overlay.covers(at, end), covered, "slots {from}..{to}");
    let next = model.range(from..).next().map(|(slot, _)| START + slot * SLOT_LEN_BYTES);
    assert_eq!(overlay.next_touched(at), next, "from slot {from}");
}

#[test]
fn a_later_run_takes_what_it_covers_from_earlier_ones() {
    for case in [
        &[(10, 20, 5), (15, 5, 1)][..],
        &[(10, 20, 5), (5, 10, 9)],
        &[(10, 20, 5), (25, 10, 9)],
        &[(10, 20, 5), (10, 20, 0)],
        &[(10, 20, 5), (0, 64, 1)],
        &[(0, 4, 5), (6, 4, 50), (12, 4, 500), (2, 12, 1)],
    ] {
        check(case);
    }
}

#[test]
fn runs_that_go_on_take_the_memory_of_one() {
    let writes: Vec<_> = (0..SLOTS).map(|slot| (slot, 1, 100 + slot)).collect();
    assert_eq!(check(&writes).runs(), 1);
    assert_eq!(check(&[(0, 8, 1), (8, 8, 1), (16, 1, 0)]).runs(), 2);
    assert_eq!(check(&[(0, 1, 100), (1, 1, 102)]).runs(), 2);
}

#[test]
fn an_overlay_is_a_map_of_slots() {
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let sets = vec((0..SLOTS, 1..24_u32, 0..40_u64), 1..12);
    let outcome = TestRunner::new_with_rng(config, random).run(&sets, |sets| {
        let inside = |(slot, count, value): (u64, u32, u64)| {
            (slot, count.min(u32::try_from(SLOTS - slot).unwrap()), value)
        };
        check(&sets.into_iter().map(inside).collect::<Vec<_>>());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
