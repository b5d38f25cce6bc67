//! Recovery of dirty images: what a crash leaves is mended, what it cannot leave is refused.

use qed_check::{Checked, FindingKind, RecoverError};

use crate::image::{AUTOCLEAR_AT, CLUSTER, FEATURES_AT, NEED_CHECK, TestImage, recover};
use crate::oracle::assert_repaired;
use crate::watched::Watched;

type Damage = fn(&mut TestImage);

fn dirty() -> TestImage {
    let mut image = TestImage::sample();
    image.set_features(FEATURES_AT, NEED_CHECK);
    image.set_features(AUTOCLEAR_AT, 1 << 40);
    image
}

#[test]
fn what_a_crash_leaves_behind_is_mended() {
    let cases: [(&str, Damage); 7] = [
        ("nothing", |_| ()),
        ("an entry linked before the file grew", |i| i.set_l2(2, 7, 8 * CLUSTER)),
        ("a table linked before the file grew", |i| i.set_l1(2, 9 * CLUSTER)),
        ("a cluster that was never linked", |i| i.bytes.extend([1; 4096])),
        ("a cluster written in part and linked", |i| {
            i.bytes.extend([1; 512]);
            i.set_l2(2, 7, 8 * CLUSTER);
        }),
        ("a cluster written in part", |i| i.bytes.extend([1; 512])),
        ("zero entries of a resize that did not finish", |i| i.set_l2(3, 90, 1)),
    ];
    for (context, (name, damage)) in (0..).zip(cases) {
        let mut image = dirty();
        damage(&mut image);
        let storage = image.storage();
        let done = recover(&*storage).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(done.checked, Checked::AllTables, "{name}");
        let after = image.with_bytes(storage.to_vec());
        assert_repaired(&image, &after, context);
        assert_eq!(after.features(FEATURES_AT), 0, "{name}");
        assert_eq!(after.features(AUTOCLEAR_AT), 0, "{name}");
    }
}

#[test]
fn what_no_crash_leaves_behind_is_refused_and_kept() {
    let cases: [(FindingKind, Damage); 7] = [
        (FindingKind::L2Duplicate, |i| i.set_l2(2, 7, 7 * CLUSTER)),
        (FindingKind::L2IntoL2Table, |i| i.set_l2(2, 7, 3 * CLUSTER)),
        (FindingKind::L2IntoL1Table, |i| i.set_l2(2, 7, CLUSTER)),
        (FindingKind::L2Unaligned, |i| i.set_l2(2, 7, 4097)),
        (FindingKind::L1SharedTable, |i| i.set_l1(1, 2 * CLUSTER)),
        (FindingKind::L1IntoL1Table, |i| i.set_l1(2, CLUSTER)),
        (FindingKind::L1Unaligned, |i| i.set_l1(2, 17)),
    ];
    for (kind, damage) in cases {
        let mut image = dirty();
        // Something that would be mended, were it alone.
        image.set_l2(2, 9, 1 << 40);
        damage(&mut image);
        let storage = image.storage();
        let Err(RecoverError::Corrupt(report)) = recover(&*storage) else {
            panic!("{kind:?} is not refused");
        };
        assert_eq!(report.counts.of(kind), 1);
        assert_eq!(storage.to_vec(), image.bytes, "{kind:?}");
    }
}

#[test]
fn a_storage_that_loses_writes_is_not_taken_for_recovered() {
    let mut image = dirty();
    image.set_l2(2, 7, 8 * CLUSTER);
    let storage = Watched::losing_writes(image.storage());
    let Err(RecoverError::Corrupt(report)) = recover(&storage) else {
        panic!("the entry is still there");
    };
    assert_eq!(report.counts.of(FindingKind::L2PastEnd), 1);
}

#[test]
fn the_refusal_names_the_first_corruption() {
    let mut image = dirty();
    image.set_l2(2, 7, 7 * CLUSTER);
    let text = recover(&*image.storage()).unwrap_err().to_string();
    assert_eq!(
        text,
        "the image is corrupt (1 errors), the first being that L1[1].L2[0] at 0x3000 holds 0x7000: \
         it names a cluster that an earlier L2 entry names, first claimed by L1[0].L2[7] at 0x2038: \
         a crash alone does not explain this, so it is not recovered"
    );
}
