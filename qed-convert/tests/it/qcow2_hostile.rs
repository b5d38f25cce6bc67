//! Hostile QCOW2 images: each is refused for the right reason, at once.

use std::time::{Duration, Instant};

use qed_convert::qcow2::{
    Qcow2Corruption, Qcow2FormatError as Bad, Qcow2OpenError, Qcow2Part, Qcow2ReadError,
    Qcow2SnapshotSelector,
};
use qed_core::{GateError, VirtualDisk};
use qed_spec::GuestOffset;

use crate::qcow2_crafted::*;
use crate::qcow2_hostile_cases::Expect::{self, Corrupt, Reads, Refused};
use crate::qcow2_hostile_cases::{Case, ENTRIES, EXTENSION_AREA, HEADER, STREAMS, TABLES};

use Qcow2Part::{BitmapDirectory, SnapshotL1Table};

#[track_caller]
fn check_all(cases: &[Case]) {
    for (name, change, expected) in cases {
        let mut image = Crafted::new();
        change(&mut image);
        let start = Instant::now();
        let outcome = outcome(image);
        assert!(start.elapsed() < Duration::from_secs(1), "{name}: {:?}", start.elapsed());
        match (outcome, expected) {
            // The name comes from the image, and so does what it is made of.
            (Refused(Bad::UnsupportedFeature { bit: 9, name: Some(found) }), _) => {
                assert_eq!(found, "time\\x1bwarp", "{name}");
            }
            (outcome, expected) => assert_eq!(&outcome, expected, "{name}"),
        }
    }
}

fn outcome(image: Crafted) -> Expect {
    let image = match image.open(None) {
        Ok(image) => image,
        Err(Qcow2OpenError::Format(error)) => return Refused(error),
        Err(error) => panic!("{error:?}"),
    };
    let mut at = 0;
    while at < image.image_size() {
        match image.extent_at(at, u64::MAX) {
            Ok(extent) => at += extent.len,
            Err(error) => return Corrupt(corruption(*error.source.downcast().expect("ours"))),
        }
    }
    let mut bytes = vec![0; usize::try_from(image.image_size()).expect("small")];
    match image.read_at(&mut bytes, GuestOffset::new(0)) {
        Ok(()) => {
            let text_at = usize::try_from(CLUSTER).expect("small");
            assert_eq!(bytes[text_at..2 * text_at], text());
            Reads
        }
        Err(error) => Corrupt(corruption(error)),
    }
}

fn corruption(error: Qcow2ReadError) -> Qcow2Corruption {
    match error {
        Qcow2ReadError::Corrupt(corruption) => corruption,
        error => panic!("{error:?}"),
    }
}

#[test]
fn headers() {
    check_all(HEADER);
}

#[test]
fn tables() {
    check_all(TABLES);
}

#[test]
fn extensions_and_backing_names() {
    check_all(EXTENSION_AREA);
}

#[test]
fn table_entries() {
    check_all(ENTRIES);
}

#[test]
fn compressed_streams() {
    check_all(STREAMS);
}

#[test]
fn snapshots_that_are_selected() {
    let one = || Qcow2SnapshotSelector::parse(b"one");
    let cases: &[(&str, u64, u32, u64, Bad)] = &[
        (
            "L1 table of 32 GiB",
            L1_TABLE,
            u32::MAX,
            SIZE,
            Bad::TableTooLarge { table: SnapshotL1Table, len: 34_359_738_360, limit: 32 << 20 },
        ),
        (
            "unaligned L1 table",
            L1_TABLE + 1,
            1,
            SIZE,
            Bad::TableUnaligned { table: SnapshotL1Table, offset: L1_TABLE + 1 },
        ),
        (
            "L1 table past the end",
            1 << 40,
            1,
            SIZE,
            Bad::TablePastEnd { table: SnapshotL1Table, offset: 1 << 40, file_len: FILE_LEN },
        ),
        (
            "L1 table too small",
            L1_TABLE,
            1,
            1 << 40,
            Bad::L1TooSmall { table: SnapshotL1Table, found: 1, needed: 1 << 19 },
        ),
        ("a size of 1 byte", L1_TABLE, 1, 1, Bad::ImageSize { found: 1 }),
    ];
    for (name, l1_offset, l1_entries, size, expected) in cases {
        let mut image = Crafted::new();
        image.snapshot(*l1_offset, *l1_entries, *size);
        let error = image.open(one()).expect_err(name);
        assert!(matches!(&error, Qcow2OpenError::Format(found) if found == expected), "{error:?}");
        // Nobody asked for the snapshot, so its table is nobody's business.
        let mut image = Crafted::new();
        image.snapshot(*l1_offset, *l1_entries, *size);
        assert_eq!(outcome(image), Reads, "{name}");
    }
    let mut image = Crafted::new();
    image.snapshot(L1_TABLE, 1, 8192);
    assert_eq!(image.open(one()).expect("a good snapshot").image_size(), 8192);
    let missing = Qcow2SnapshotSelector::parse(b"two");
    let error = Crafted::new().open(missing).expect_err("there is no snapshot");
    assert_eq!(error.to_string(), "the image has no snapshot with id or name 'two'");
}

#[test]
fn bitmap_directories() {
    let bitmaps = |count: u32, size: u64, offset: u64| {
        let mut image = Crafted::new();
        let mut payload = count.to_be_bytes().to_vec();
        payload.extend([0; 4]);
        payload.extend(size.to_be_bytes());
        payload.extend(offset.to_be_bytes());
        image.extension(0x2385_2875, 24, &payload);
        image.u64(AUTOCLEAR, 1);
        image.open(None).expect("bitmaps are not looked at").read_bitmaps()
    };
    let table = BitmapDirectory;
    for (name, result, expected) in [
        (
            "huge",
            bitmaps(1, 1 << 40, 0),
            Bad::TableTooLarge { table, len: 1 << 40, limit: 16 << 20 },
        ),
        (
            "past the end",
            bitmaps(1, 24, u64::MAX),
            Bad::TablePastEnd { table, offset: u64::MAX, file_len: FILE_LEN },
        ),
        ("more than fit", bitmaps(u32::MAX, 24, SNAPSHOTS), Bad::BitmapEntry { index: 1 }),
    ] {
        let error = result.expect_err(name);
        assert!(matches!(&error, Qcow2OpenError::Format(found) if *found == expected), "{error:?}");
    }
}

#[test]
fn a_backing_name_never_opens_anything_by_itself() {
    let mut image = Crafted::new();
    image.u64(BACKING_OFFSET, 200);
    image.u32(BACKING_LEN, 11);
    image.put(200, b"/etc/shadow");
    let error = image.open(None).expect_err("the gate refuses");
    let refused = matches!(
        &error,
        Qcow2OpenError::Gate { name, source: GateError::Refused } if name == "/etc/shadow"
    );
    assert!(refused, "{error:?}");
}
