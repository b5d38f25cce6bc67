//! The anchor: its layout, every way to damage it, and when its offsets are followed.

use qed_spec::{
    Anchor, AnchorError, BackingFormatError, BackingName, Features, HostOffset,
    StoredBackingFormat, SuperblockCopy,
};

use crate::image::header;
use crate::superblock::{crc32c, seal};

fn name() -> BackingName<'static> {
    BackingName::new(b"base.img").expect("a legal name")
}

fn anchor() -> Anchor<'static> {
    Anchor {
        backing_format: Some(StoredBackingFormat::new("qcow2", name()).expect("legal")),
        superblocks: Some([HostOffset::new(0x5000), HostOffset::new(0x7000)]),
    }
}

/// Bytes of an anchor with the right checksum and a change of some of them.
fn patched(at: usize, bytes: &[u8]) -> [u8; 512] {
    let mut block = anchor().encode();
    block[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut block);
    block
}

// spec-test: QED-SB-19
#[test]
fn what_is_written_has_the_bytes_of_the_specification() {
    let mut expected = b"QEDA\x01\0\0\0\0\0\0\0".to_vec();
    expected.extend(crc32c(b"base.img").to_le_bytes());
    expected.extend([0x5000_u64.to_le_bytes(), 0x7000_u64.to_le_bytes()].concat());
    expected.extend(b"qcow2");
    expected.resize(512, 0);
    seal(&mut expected);
    assert_eq!(anchor().encode().to_vec(), expected);
}

// spec-test: QED-SB-19
#[test]
fn what_is_written_is_read_back() {
    let (full, empty) = (anchor(), Anchor::default());
    let only_format = Anchor { superblocks: None, ..full };
    let only_places = Anchor { backing_format: None, ..full };
    for anchor in [full, only_format, only_places, empty] {
        assert_eq!(Anchor::parse(&anchor.encode()), Ok(anchor));
    }
    let stored = full.backing_format.expect("there");
    assert_eq!(stored.format_of(name()), Some("qcow2"));
    assert_eq!(stored.format_of(BackingName::new(b"other").expect("legal")), None);
}

// spec-test: QED-SB-19
#[test]
fn damage_anywhere_is_found() {
    let bytes = anchor().encode();
    for len in [0, 511] {
        let short = Anchor::parse(&bytes[..len]);
        assert_eq!(short, Err(AnchorError::Truncated { found: len as u64 }));
    }
    for position in 0..512 {
        let mut bytes = bytes;
        bytes[position] ^= 0x80;
        let found = Anchor::parse(&bytes).expect_err("damaged");
        match position {
            0..4 => assert!(matches!(found, AnchorError::Magic { .. }), "{position}: {found}"),
            _ => assert!(matches!(found, AnchorError::Checksum { .. }), "{position}: {found}"),
        }
    }
}

// spec-test: QED-SB-16, QED-SB-19
#[test]
fn an_intact_anchor_that_breaks_a_rule_is_refused() {
    let byte = |at, found| AnchorError::BackingFormat(BackingFormatError::Byte { at, found });
    let cases: [(usize, &[u8], AnchorError); 6] = [
        (4, &[2], AnchorError::Version { found: 2 }),
        (64, &[1], AnchorError::Padding { at: 64 }),
        (511, &[1], AnchorError::Padding { at: 511 }),
        (32, b"QCOW2", byte(0, b'Q')),
        (32, b"ra\0w2", byte(2, 0)),
        (32, &[0; 5], AnchorError::BackingFormat(BackingFormatError::Length { found: 0 })),
    ];
    for (at, bytes, expected) in cases {
        assert_eq!(Anchor::parse(&patched(at, bytes)), Err(expected), "byte {at}");
    }
}

// spec-test: QED-SB-18
#[test]
fn an_anchor_is_read_only_where_superblocks_have_no_room_and_the_name_ends_before() {
    assert_eq!(Anchor::OFFSET, HostOffset::new(2048));
    let cases = [
        (4096, 1, None, true),
        (4096, 3, None, true),
        (4096, 4, None, false),
        (8192, 1, None, true),
        (16384, 1, None, false),
        (4096, 1, Some((64, 1984)), true),
        (4096, 1, Some((64, 1985)), false),
        (4096, 1, Some((2100, 5)), false),
        (4096, 1, Some((4095, 1)), false),
        (8192, 1, Some((4096, 100)), true),
    ];
    for (cluster_size, header_size, name, expected) in cases {
        let header = header(cluster_size, header_size, Features::empty(), name);
        let found = Anchor::fits(&header);
        assert_eq!(found, expected, "{header_size} clusters of {cluster_size}, name {name:?}");
    }
}

// spec-test: QED-SB-20
#[test]
fn its_offsets_are_followed_only_under_an_incompatible_extension() {
    const FILE_LEN: u64 = 1 << 20;
    for bit in 0..64 {
        let features = Features::from_bits_retain(1 << bit);
        let name = features.contains(Features::BACKING_FILE).then_some((64, 4));
        let header = header(4096, 1, features, name);
        let places = anchor().superblocks.filter(|_| bit > 2);
        assert_eq!(anchor().superblocks_in(&header, FILE_LEN), Ok(places), "bit {bit}");
        let none = Anchor { superblocks: None, ..anchor() };
        assert_eq!(none.superblocks_in(&header, FILE_LEN), Ok(None));
    }
}

// spec-test: QED-SB-20
#[test]
fn each_copy_has_a_cluster_of_its_own_behind_the_header_area_and_inside_the_file() {
    const FILE_LEN: u64 = 40 * 4096;
    let header = header(4096, 2, Features::SNAPSHOTS, None);
    let cases = [
        (0x2000, 0x3000, None),
        (0x3000, 39 * 4096, None),
        (0x3000, 40 * 4096, Some(SuperblockCopy::B)),
        (0x1000, 0x3000, Some(SuperblockCopy::A)),
        (0, 0x3000, Some(SuperblockCopy::A)),
        (0x3000, 0, Some(SuperblockCopy::B)),
        (0x3000, 0x3000, Some(SuperblockCopy::A)),
        (0x3000, 0x3200, Some(SuperblockCopy::B)),
        (0x3000, u64::MAX - 4095, Some(SuperblockCopy::B)),
        (u64::MAX, 0x3000, Some(SuperblockCopy::A)),
    ];
    for (a, b, bad) in cases {
        let places = [HostOffset::new(a), HostOffset::new(b)];
        let anchor = Anchor { superblocks: Some(places), ..Anchor::default() };
        let found = anchor.superblocks_in(&header, FILE_LEN);
        let expected = match bad {
            None => Ok(Some(places)),
            Some(copy) => {
                let found = places[usize::from(copy == SuperblockCopy::B)];
                Err(AnchorError::Place { copy, found, file_len: FILE_LEN })
            }
        };
        assert_eq!(found, expected, "{a:#x} {b:#x}");
    }
}
