//! One copy of the superblock: its layout, its checksum, and every way to damage it.

use qed_spec::{
    BackingFormatError, BackingName, Epoch, Generation, ImageUuid, SUPERBLOCK_LEN_BYTES,
    SectionType, StoredBackingFormat, Superblock, SuperblockBuilder, SuperblockError,
};

pub(crate) const UUID: [u8; 16] = *b"0123456789abcdef";

/// A copy with a known section, an unknown one, and one without payload.
pub(crate) fn builder() -> SuperblockBuilder {
    let mut builder = SuperblockBuilder::new(ImageUuid::new(UUID), Epoch::new(0x1122_3344));
    for (kind, payload) in [(70_000, &b"unknown"[..]), (1, b"m"), (99, b"")] {
        builder.set_section(SectionType::new(kind), payload).expect("room");
    }
    builder
}

pub(crate) fn copy(generation: u64) -> [u8; SUPERBLOCK_LEN_BYTES] {
    builder().encode(Generation::new(generation).expect("not zero"))
}

/// Bytes of a copy with the right checksum, put together without the crate's own structures.
pub(crate) fn sealed(version: u32, generation: u64, sections_len: u32, sections: &[u8]) -> Vec<u8> {
    let mut bytes = b"QEDX".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(sections_len.to_le_bytes());
    bytes.extend(generation.to_le_bytes());
    bytes.extend(UUID);
    bytes.extend(0x1122_3344_u64.to_le_bytes());
    bytes.extend(sections);
    bytes.resize(SUPERBLOCK_LEN_BYTES, 0);
    seal(&mut bytes);
    bytes
}

/// Puts the checksum into a block, bit by bit as the definition has it.
pub(crate) fn seal(block: &mut [u8]) {
    block[8..12].fill(0);
    let checksum = crc32c(block);
    block[8..12].copy_from_slice(&checksum.to_le_bytes());
}

pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn the_checksum_of_the_tests_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the catalogue");
}

// spec-test: QED-SB-02, QED-SB-03, QED-SB-05, QED-SB-06, QED-SB-17
#[test]
fn what_is_written_has_the_bytes_of_the_specification() {
    let sections = [
        &[1, 0, 0, 0, 1, 0, 0, 0, b'm', 0, 0, 0, 0, 0, 0, 0][..],
        &[99, 0, 0, 0, 0, 0, 0, 0],
        &[0x70, 0x11, 1, 0, 7, 0, 0, 0],
        b"unknown\0",
    ];
    let sections = sections.concat();
    assert_eq!(copy(5).to_vec(), sealed(1, 5, 40, &sections));
}

// spec-test: QED-SB-02, QED-SB-08
#[test]
fn what_is_written_is_read_back() {
    let bytes = copy(u64::MAX);
    let superblock = Superblock::parse(&bytes).expect("valid");
    assert_eq!(superblock.generation(), Generation::new(u64::MAX).expect("not zero"));
    assert_eq!(superblock.uuid().as_bytes(), &UUID);
    assert_eq!(superblock.uuid().to_string(), "30313233-3435-3637-3839-616263646566");
    assert_eq!(superblock.epoch(), Epoch::new(0x1122_3344));
    let found: Vec<_> =
        superblock.sections().map(|s| (s.kind().get(), s.at(), s.payload())).collect();
    let expected: [(u32, u32, &[u8]); 3] = [(1, 56, b"m"), (99, 72, b""), (70_000, 80, b"unknown")];
    assert_eq!(found, expected);
    let unknown = superblock.section(SectionType::new(70_000)).expect("there");
    assert_eq!(&bytes[80..87], unknown.payload());
    assert_eq!(superblock.section(SectionType::JOURNAL), None);
}

// spec-test: QED-SB-02
#[test]
fn a_copy_needs_4096_bytes_and_uses_no_more() {
    let mut bytes = copy(1).to_vec();
    for len in [0, 1, 47, 48, 4095] {
        let short = Superblock::parse(&bytes[..len]).map(|_| ());
        assert_eq!(short, Err(SuperblockError::Truncated { found: len as u64 }));
    }
    bytes.extend([0xff; 100]);
    assert!(Superblock::parse(&bytes).is_ok());
}

// spec-test: QED-SB-03
#[test]
fn a_flipped_bit_anywhere_is_found() {
    let bytes = copy(7);
    for position in 0..bytes.len() {
        let mut bytes = bytes;
        bytes[position] ^= 1 << (position % 8);
        let found = Superblock::parse(&bytes).expect_err("damaged");
        match position {
            0..4 => assert!(matches!(found, SuperblockError::Magic { .. }), "{position}: {found}"),
            _ => assert!(matches!(found, SuperblockError::Checksum { .. }), "{position}: {found}"),
        }
    }
}

// spec-test: QED-SB-03, QED-DISK-01
#[test]
fn of_all_torn_writes_only_the_whole_ones_are_valid() {
    let (old, mut new) = (copy(7), builder());
    // A payload that reaches into every sector, so that all eight differ.
    new.set_section(SectionType::new(5), &[0xa5; 3900]).expect("room");
    let new = new.encode(Generation::new(8).expect("not zero"));
    for kept in 0_u32..256 {
        let mut torn = old;
        for sector in (0..8).filter(|sector| kept >> sector & 1 == 1) {
            let range = sector * 512..(sector + 1) * 512;
            torn[range.clone()].copy_from_slice(&new[range]);
        }
        let found = Superblock::parse(&torn).map(|superblock| superblock.generation().get());
        match kept {
            0 => assert_eq!(found, Ok(7)),
            255 => assert_eq!(found, Ok(8)),
            _ => assert!(matches!(found, Err(SuperblockError::Checksum { .. })), "{kept:08b}"),
        }
    }
}

// spec-test: QED-SB-03, QED-DISK-01
#[test]
fn garbage_in_one_sector_is_found() {
    for sector in 0..8 {
        let mut bytes = copy(7);
        let range = sector * 512..(sector + 1) * 512;
        for (position, byte) in (0_u8..=255).cycle().zip(&mut bytes[range]) {
            *byte = position.wrapping_mul(37) ^ 0x5a;
        }
        assert!(Superblock::parse(&bytes).is_err(), "sector {sector}");
    }
    for fill in [0, 0xff] {
        assert!(Superblock::parse(&[fill; 4096]).is_err());
    }
}

// spec-test: QED-SB-04, QED-SB-05, QED-SB-06, QED-SB-07, QED-SB-09
#[test]
fn an_intact_copy_that_breaks_a_rule_is_refused_with_its_place() {
    let head = |kind: u32, len: u32| [kind.to_le_bytes(), len.to_le_bytes()].concat();
    let pair = |first, second| [head(first, 0), head(second, 0)].concat();
    let kinds = |kind, previous| {
        let (kind, previous) = (SectionType::new(kind), SectionType::new(previous));
        SuperblockError::SectionOrder { at: 56, kind, previous }
    };
    let padded = [head(1, 3), b"abc\0\0\0\0\x01".to_vec()].concat();
    let cases: [(Vec<u8>, SuperblockError); 15] = [
        (sealed(0, 1, 0, &[]), SuperblockError::Version { found: 0 }),
        (sealed(2, 1, 0, &[]), SuperblockError::Version { found: 2 }),
        (sealed(1, 0, 0, &[]), SuperblockError::Generation),
        (sealed(1, 1, 4, &[]), SuperblockError::SectionsLength { found: 4 }),
        (sealed(1, 1, 4056, &[]), SuperblockError::SectionsLength { found: 4056 }),
        (sealed(1, 1, u32::MAX, &[]), SuperblockError::SectionsLength { found: u32::MAX }),
        (sealed(1, 1, 8, &head(1, 1)), SuperblockError::SectionTruncated { at: 48 }),
        (sealed(1, 1, 8, &head(1, u32::MAX)), SuperblockError::SectionTruncated { at: 48 }),
        (sealed(1, 1, 16, &pair(1, 0)), kinds(0, 1)),
        (sealed(1, 1, 16, &pair(3, 3)), kinds(3, 3)),
        (
            sealed(1, 1, 16, &[head(3, 0), head(4, 9)].concat()),
            SuperblockError::SectionTruncated { at: 56 },
        ),
        (sealed(1, 1, 16, &padded), SuperblockError::Padding { at: 63 }),
        (sealed(1, 1, 0, &[1]), SuperblockError::Padding { at: 48 }),
        (sealed(1, 1, 8, &pair(1, 2)), SuperblockError::Padding { at: 56 }),
        (
            sealed(1, 1, 0, &[[0; 4047].as_slice(), &[9]].concat()),
            SuperblockError::Padding { at: 4095 },
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Superblock::parse(&bytes).map(|_| ()), Err(expected));
    }
}

// spec-test: QED-SB-05, QED-SB-07
#[test]
fn a_copy_may_be_empty_and_may_be_full() {
    let empty = sealed(1, 1, 0, &[]);
    assert_eq!(Superblock::parse(&empty).expect("valid").sections().count(), 0);
    let many: Vec<u8> =
        (0_u32..506).flat_map(|kind| [kind.to_le_bytes(), [0; 4]].concat()).collect();
    let full = sealed(1, 1, 4048, &many);
    assert_eq!(Superblock::parse(&full).expect("valid").sections().count(), 506);
    let one = [SectionType::MODE.get().to_le_bytes(), 4040_u32.to_le_bytes()].concat();
    let one = [one, vec![7; 4040]].concat();
    let one = sealed(1, 1, 4048, &one);
    let section = Superblock::parse(&one).expect("valid").section(SectionType::MODE);
    assert_eq!(section.expect("there").payload(), [7; 4040]);
}

// spec-test: QED-SB-15
#[test]
fn the_backing_format_holds_for_one_name() {
    let name = |bytes| BackingName::new(bytes).expect("a legal name");
    let (ours, other) = (name(b"base.qcow2"), name(b"other.qcow2"));
    let mut builder = builder();
    let stored = StoredBackingFormat::new("qcow2", ours).expect("a legal format");
    builder.set_backing_format(&stored).expect("room");
    let bytes = builder.encode(Generation::FIRST);
    let superblock = Superblock::parse(&bytes).expect("valid");
    assert_eq!(superblock.backing_format(ours), Ok(Some("qcow2")));
    assert_eq!(superblock.backing_format(other), Ok(None));
    let payload = superblock.section(SectionType::BACKING_FORMAT).expect("there").payload();
    assert_eq!(payload, [&crc32c(b"base.qcow2").to_le_bytes()[..], b"qcow2"].concat());
    let without = copy(1);
    assert_eq!(Superblock::parse(&without).expect("valid").backing_format(ours), Ok(None));
}

// spec-test: QED-SB-15, QED-SB-16
#[test]
fn a_stored_format_that_breaks_a_rule_is_an_error_and_not_a_guess() {
    let name = BackingName::new(b"base").expect("a legal name");
    let x33 = [b'x'; 37];
    let cases: [(&[u8], Result<&str, BackingFormatError>); 9] = [
        (b"", Err(BackingFormatError::Truncated { found: 0 })),
        (b"crc", Err(BackingFormatError::Truncated { found: 3 })),
        (b"crc.", Err(BackingFormatError::Length { found: 0 })),
        (&x33, Err(BackingFormatError::Length { found: 33 })),
        (&x33[..36], Ok("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")),
        (b"crc.raw\0", Err(BackingFormatError::Byte { at: 3, found: 0 })),
        (b"crc.Raw", Err(BackingFormatError::Byte { at: 0, found: b'R' })),
        (b"crc.r\xe9w", Err(BackingFormatError::Byte { at: 1, found: 0xe9 })),
        (b"crc.luks-2_b", Ok("luks-2_b")),
    ];
    for (payload, expected) in cases {
        let parsed = StoredBackingFormat::parse(payload).map(|stored| stored.format());
        assert_eq!(parsed, expected, "{}", payload.escape_ascii());
        let mut builder = builder();
        builder.set_section(SectionType::BACKING_FORMAT, payload).expect("room");
        let bytes = builder.encode(Generation::FIRST);
        let found = Superblock::parse(&bytes).expect("valid").backing_format(name);
        let at = 72;
        let expected = expected.map(|_| None);
        assert_eq!(found, expected.map_err(|error| SuperblockError::BackingFormat { at, error }));
    }
}
