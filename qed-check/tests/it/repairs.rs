//! Repairs in particular: what each mode touches, feature bits, and refusals.

use std::sync::Arc;

use qed_check::{CheckError, CheckOptions, FindingKind, Repair, check, repair};
use qed_io::{MemoryStorage, Operation, Recorder, Storage};
use qed_spec::{Epoch, Generation, ImageUuid, SectionType, SuperblockBuilder};

use crate::image::{AUTOCLEAR_AT, CLUSTER, FEATURES_AT, NEED_CHECK, TestImage, recover};
use crate::oracle::assert_repaired;

type Damage = fn(&mut TestImage);

#[test]
fn a_sound_image_is_not_written() {
    let image = TestImage::sample();
    for what in [Repair::Leaks, Repair::All] {
        let storage = Recorder::new(image.storage());
        let report = repair(&storage, what).unwrap();
        assert!(report.is_clean());
        assert!(storage.records().is_empty(), "{:?}", storage.records());
    }
}

#[test]
fn leaks_are_left_alone_where_corruptions_make_them_uncertain() {
    let mut image = TestImage::sample();
    image.bytes.extend([0; 4096]);
    image.set_l2(2, 7, 3);
    let storage = image.storage();
    let report = repair(&*storage, Repair::Leaks).unwrap();
    assert_eq!((report.corruptions(), report.leaks()), (1, 1));
    assert!(report.repaired.findings.is_empty());
    assert_eq!(storage.to_vec(), image.bytes);
    repair(&*storage, Repair::All).unwrap();
    assert_repaired(&image, &image.with_bytes(storage.to_vec()), 0);
}

#[test]
fn leaks_alone_are_cut_off_in_either_mode() {
    for what in [Repair::Leaks, Repair::All] {
        let mut image = TestImage::sample();
        image.bytes.extend([0; 5000]);
        let memory = image.storage();
        let storage = Recorder::new(Arc::clone(&memory) as Arc<dyn Storage>);
        let report = repair(&storage, what).unwrap();
        assert_eq!(report.repaired.counts.of(FindingKind::LeakAtEnd), 1);
        assert_eq!(report.repaired.counts.of(FindingKind::UnusedPartialTail), 1);
        assert_eq!(memory.to_vec(), TestImage::sample().bytes);
        let records = storage.records();
        let writes = records.iter().any(|it| matches!(it.operation, Operation::Write { .. }));
        assert!(!writes, "a crash needs no mark where only the length changes: {records:?}");
    }
}

#[test]
fn a_leak_is_gone_only_if_it_came_to_lie_at_the_end() {
    let mut image = TestImage::sample();
    // Cluster 7 is held by nothing but an entry past the end of the disk; 4 and 6 by nothing.
    for (table, slot, value) in [(3, 0, 0), (3, 90, 7 * CLUSTER), (2, 0, 0), (2, 5, 0)] {
        image.set_l2(table, slot, value);
    }
    let before = image.check();
    let kinds: Vec<_> = before.findings.iter().map(|finding| finding.kind).collect();
    let leak = FindingKind::LeakInside;
    assert_eq!(kinds, [FindingKind::L2BeyondImage, leak, leak]);
    let storage = image.storage();
    let report = repair(&*storage, Repair::All).unwrap();
    assert_eq!(report.repaired.findings, [before.findings[0]]);
    assert_eq!((report.leaks(), report.repaired.kept_clusters), (3, 3));
    let report = repair(&*storage, Repair::Leaks).unwrap();
    assert_eq!(report.findings, [before.findings[1]]);
    assert_eq!(report.repaired.counts.of(FindingKind::LeakAtEnd), 2);

    // With cluster 8 in use the last leak becomes longer instead.
    image.bytes.extend([9; 4096]);
    image.set_l2(2, 9, 8 * CLUSTER);
    let report = repair(&*image.storage(), Repair::All).unwrap();
    assert_eq!(report.counts.of(leak), 3);
    assert_eq!(report.repaired.findings, [before.findings[0]]);
}

// spec-test: QED-CHK-08
#[test]
fn what_a_lost_table_led_to_stays_until_leaks_are_repaired() {
    let lose: [(&str, Damage); 4] = [
        ("unaligned", |i| i.set_l1(1, 3 * CLUSTER + 1)),
        ("past the end", |i| i.set_l1(1, 1 << 40)),
        ("into the L1 table", |i| i.set_l1(1, CLUSTER)),
        ("an entry past the end", |i| i.set_l2(3, 0, 1 << 40)),
    ];
    for (name, damage) in lose {
        for is_dirty in [false, true] {
            let mut image = TestImage::sample();
            damage(&mut image);
            if is_dirty {
                image.set_features(FEATURES_AT, NEED_CHECK);
            }
            let storage = image.storage();
            let report = repair(&*storage, Repair::All).unwrap();
            let kept = storage.to_vec();
            assert_eq!(kept.len(), image.bytes.len(), "{name}");
            assert_eq!(kept[4 << 12..], image.bytes[4 << 12..], "{name}");
            assert_eq!(report.repaired.kept_clusters, report.leaks(), "{name}");
            assert!(report.leaks() > 0, "{name}");
            let report = repair(&*storage, Repair::Leaks).unwrap();
            assert_eq!(report.repaired.counts.of(FindingKind::LeakAtEnd), 1, "{name}");
            assert_eq!(storage.to_vec().len(), 7 << 12, "{name}");
        }
    }
}

#[test]
fn a_repair_that_goes_on_after_a_crash_cuts_nothing_off() {
    // As if cut off once the entries were mended.
    let mut image = TestImage::sample();
    image.set_features(FEATURES_AT, NEED_CHECK);
    image.set_l1(1, 0);
    let run: [fn(&MemoryStorage); 2] = [
        |storage| assert!(recover(storage).is_ok()),
        |storage| assert_eq!(repair(storage, Repair::All).unwrap().repaired.kept_clusters, 2),
    ];
    for run in run {
        let storage = image.storage();
        run(&storage);
        assert_eq!(storage.to_vec().len(), image.bytes.len());
        assert!(!image.with_bytes(storage.to_vec()).check().dirty);
    }
}

// spec-test: QED-FEAT-03, QED-CONS-03
#[test]
fn need_check_is_cleared_and_unknown_autoclear_bits_before_the_first_write() {
    let mut image = TestImage::sample();
    image.set_features(FEATURES_AT, NEED_CHECK);
    image.set_features(AUTOCLEAR_AT, 1 << 32 | 1);
    let storage = image.storage();
    let report = repair(&*storage, Repair::Leaks).unwrap();
    assert!(!report.dirty);
    assert_eq!(storage.to_vec(), TestImage::sample().bytes);
}

#[test]
fn a_later_table_over_an_earlier_one_keeps_its_data() {
    let mut image = TestImage::new(2, 3000, 12);
    image.table(0, 3);
    image.set_l2(3, 700, 8 * CLUSTER);
    image.set_l1(1, 4 * CLUSTER);
    image.clear(5, 1);
    image.set_l2(5, 3, 9 * CLUSTER);
    // Lost if the file grew before it is cleared.
    image.set_l2(5, 9, 13 * CLUSTER);
    image.set_l1(2, 3 * CLUSTER);
    let storage = image.storage();
    repair(&*storage, Repair::All).unwrap();
    assert_repaired(&image, &image.with_bytes(storage.to_vec()), 0);
}

#[test]
fn data_that_lies_in_a_table_past_the_end_of_the_disk_is_kept() {
    let mut image = TestImage::sample();
    // Guest cluster 5 lies there.
    image.set_l1(9, 6 * CLUSTER);
    let storage = image.storage();
    let report = repair(&*storage, Repair::All).unwrap();
    assert_eq!(report.repaired.counts.of(FindingKind::L1BeyondImage), 1);
    assert_eq!(report.repaired.counts.of(FindingKind::L2IntoL2Table), 1);
    assert_eq!(storage.to_vec(), TestImage::sample().bytes);
}

// spec-test: QED-CHK-09
#[test]
fn guest_data_that_a_stray_l1_slot_takes_for_a_table_is_not_mended() {
    let changes: [(&str, Damage); 4] = [
        ("no entries at all", |i| i.bytes[4 << 12..5 << 12].fill(0xa5)),
        ("an entry past the end", |i| i.set_l2(4, 3, 1 << 40)),
        ("an entry past the end of the disk", |i| i.set_l2(4, 500, 1)),
        ("an entry for a cluster of another", |i| i.set_l2(4, 0, 7 * CLUSTER)),
    ];
    for (name, damage) in changes {
        let mut image = TestImage::new(1, 3 * 512 - 100, 8);
        image.bytes[1 << 12..].copy_from_slice(&TestImage::sample().bytes[1 << 12..]);
        image.clear(4, 1);
        damage(&mut image);
        image.set_l1(2, 4 * CLUSTER);
        let storage = image.storage();
        let error = repair(&*storage, Repair::All).unwrap_err();
        let CheckError::TableOrData { at, l1 } = error else { panic!("{name}: {error}") };
        assert_eq!((at.get(), l1.get()), (4 * CLUSTER, 2), "{name}");
        assert_eq!(storage.to_vec(), image.bytes, "{name}");
        let text = error.to_string();
        assert!(text.contains("0x4000") && text.contains("L1[2]"), "{text}");
    }
}

// spec-test: QED-CHK-04
#[test]
fn an_entry_that_names_a_sound_table_gets_a_copy_of_it() {
    let mut image = TestImage::sample();
    image.set_l2(2, 7, 3 * CLUSTER);
    let storage = image.storage();
    let report = repair(&*storage, Repair::All).unwrap();
    assert_eq!(report.repaired.counts.of(FindingKind::L2IntoL2Table), 1);
    let after = image.with_bytes(storage.to_vec());
    assert_repaired(&image, &after, 0);
    assert_eq!(after.bytes[8 << 12..], image.bytes[3 << 12..4 << 12]);
}

#[test]
fn images_that_would_multiply_are_refused() {
    let mut image = TestImage::new(1, 512 * 512, 12);
    image.table(0, 2);
    for l2 in 0..9 {
        image.set_l2(2, l2, (3 + l2) * CLUSTER);
    }
    for l1 in 1..30 {
        image.set_l1(l1, 2 * CLUSTER);
    }
    let storage = image.storage();
    let result = repair(&*storage, Repair::All);
    assert!(matches!(result, Err(CheckError::TooManyCopies { needed: 200.., limit: 192 })));
    assert_eq!(storage.to_vec(), image.bytes);
}

// spec-test: QED-FEAT-01
#[test]
fn unsupported_features_refuse_by_number_and_name() {
    for (bit, text) in [
        (32, "unsupported QED feature bit 32 (JOURNAL_ACTIVE)"),
        (33, "unsupported QED feature bit 33 (SNAPSHOTS)"),
        (63, "unsupported QED feature bit 63"),
    ] {
        let mut image = TestImage::sample();
        image.set_features(FEATURES_AT, 1 << bit);
        let storage = image.storage();
        for result in [
            check(&*storage, &CheckOptions::default()),
            repair(&*storage, Repair::Leaks),
            repair(&*storage, Repair::All),
        ] {
            let Err(CheckError::Header(error)) = result else { panic!("bit {bit} is accepted") };
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(storage.to_vec(), image.bytes);
    }
}

#[test]
fn bad_headers_cannot_be_checked() {
    let cases: [(&str, Damage); 6] = [
        ("not a header", |i| i.bytes.truncate(63)),
        ("magic", |i| i.bytes[0] = b'q'),
        ("L1 past the end", |i| i.set(40, 1 << 40)),
        ("L1 unaligned", |i| i.set(40, CLUSTER + 8)),
        ("L1 in the header", |i| i.set(40, 0)),
        ("empty", |i| i.bytes.clear()),
    ];
    for (name, damage) in cases {
        let mut image = TestImage::sample();
        damage(&mut image);
        let storage = MemoryStorage::new(image.bytes);
        let result = check(&storage, &CheckOptions::default());
        assert!(matches!(result, Err(CheckError::Header(_))), "{name}: {result:?}");
        assert!(storage.len().is_ok());
    }
}

// spec-test: QED-SB-04, QED-SB-10, QED-MODE-01
#[test]
fn nothing_is_repaired_over_superblocks_without_a_choice() {
    // A header area of four clusters, and a leak at the end.
    let mut image = TestImage::with_header(4, 1, 600, 6);
    // Copy A is of version 2, with its checksum.
    image.bytes[8192..8197].copy_from_slice(b"QEDX\x02");
    let crc: u32 = 0x7051_bb9c;
    image.bytes[8200..8204].copy_from_slice(&crc.to_le_bytes());
    let storage = image.storage();
    for what in [Repair::Leaks, Repair::All] {
        let error = repair(&*storage, what).unwrap_err();
        assert!(matches!(error, CheckError::Superblock(_)), "{error}");
    }
    assert_eq!(storage.to_vec(), image.bytes);
    // A mode that nobody knows: the section MODE with the number 3.
    let mut builder = SuperblockBuilder::new(ImageUuid::new([5; 16]), Epoch::new(5));
    builder.set_section(SectionType::MODE, &[3, 0, 0, 0]).unwrap();
    let unknown = image.storage();
    unknown.write_at(&builder.encode(Generation::FIRST), 8192).unwrap();
    let before = unknown.to_vec();
    for what in [Repair::Leaks, Repair::All] {
        let error = repair(&*unknown, what).unwrap_err();
        assert!(matches!(error, CheckError::Mode(_)), "{error}");
    }
    assert_eq!(unknown.to_vec(), before);
    // A copy that is torn keeps nobody from anything.
    image.bytes[8192 + 5] = 1;
    assert_eq!(repair(&*image.storage(), Repair::Leaks).unwrap().leaks(), 0);
}

// spec-test: QED-HDR-09
#[test]
fn each_change_of_the_header_is_one_write_of_its_sector() {
    let run: [fn(&Recorder); 2] = [
        |storage| drop(repair(storage, Repair::All).unwrap()),
        |storage| assert!(recover(storage).is_ok()),
    ];
    for run in run {
        let mut image = TestImage::sample();
        image.set_features(FEATURES_AT, NEED_CHECK);
        image.set_features(AUTOCLEAR_AT, 1 << 40);
        image.set_l2(2, 7, 8 * CLUSTER);
        // Bytes of the sector that only another program understands.
        image.bytes[64..512].fill(0xa5);
        let storage = Recorder::new(image.storage());
        run(&storage);
        let mut sector = image.bytes[..512].to_vec();
        let mut changes = 0;
        for record in storage.records() {
            let Operation::Write { offset, bytes } = record.operation else { continue };
            if offset >= 512 {
                continue;
            }
            assert_eq!((offset, bytes.len()), (0, 512));
            let is_kept = |at: usize| at < 16 || (24..32).contains(&at) || at >= 40;
            let differs = (0..512).find(|at| is_kept(*at) && bytes[*at] != sector[*at]);
            assert_eq!(differs, None, "a byte that is no feature bit");
            assert_ne!(bytes[..], sector[..], "a write that changes nothing");
            sector = bytes.to_vec();
            changes += 1;
        }
        assert_eq!(changes, 2, "the mark and its end");
    }
}
