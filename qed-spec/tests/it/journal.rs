//! The journal on disk: the section, one block, one record, each byte by byte and at its bounds.

use qed_spec::{
    AutoclearFeatures, ClusterCount, CompatFeatures, DirtyBitmap, Epoch, Features, Generation,
    Geometry, Header, HeaderFields, HostCluster, HostOffset, ImageUuid, JournalBlock,
    JournalBlockError, JournalBlockHead, JournalRecord, JournalRecordError, JournalRing,
    JournalRingError, JournalSeed, JournalSequence, L1Entry, RawJournalRecord,
};
use zerocopy::IntoBytes;

use crate::superblock::{UUID, crc32c};

const EPOCH: u64 = 0x1122_3344_5566_7788;

fn seed() -> JournalSeed {
    JournalSeed::new(ImageUuid::new(UUID), Epoch::new(EPOCH))
}

fn head() -> JournalBlockHead {
    JournalBlockHead {
        previous_crc32c: 0x0403_0201,
        sequence: JournalSequence::new(0x0807_0605),
        stable: JournalSequence::new(0x0807_0604),
        generation: Generation::new(9).expect("not 0"),
        physical_size: ClusterCount::new(77),
        index: 1,
        count: 3,
    }
}

fn raw(kind: u32, count: u32, at: u64, value: u64) -> RawJournalRecord {
    RawJournalRecord { kind: kind.into(), count: count.into(), at: at.into(), value: value.into() }
}

/// A block with the right checksum, put together without the crate's own structures.
fn sealed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = b"QEDJ".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend([1, 2, 3, 4]);
    bytes.extend(0x0807_0605_u64.to_le_bytes());
    bytes.extend(0x0807_0604_u64.to_le_bytes());
    bytes.extend(9_u64.to_le_bytes());
    bytes.extend(77_u64.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(24_u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend(0x10_0000_u64.to_le_bytes());
    bytes.resize(4096, 0);
    change(&mut bytes);
    let seeded = [&UUID[..], &EPOCH.to_le_bytes(), &bytes].concat();
    bytes[8..12].copy_from_slice(&crc32c(&seeded).to_le_bytes());
    bytes
}

// spec-test: QED-JRN-04, QED-JRN-05
#[test]
fn a_block_has_the_bytes_of_the_specification() {
    let block = head().encode(&[raw(3, 2, 0x10_0000, 0)], &seed());
    assert_eq!(block.as_bytes(), sealed(|_| ()));
    let bytes = sealed(|_| ());
    let parsed = JournalBlock::parse(&bytes, &seed()).expect("valid");
    assert_eq!((*parsed.head(), parsed.crc32c()), (head(), block.crc32c.get()));
    let geometry = Geometry::new(65536, 4).expect("legal");
    let records: Vec<_> = parsed.records(geometry).collect();
    let at = HostOffset::new(0x10_0000);
    assert_eq!(records, [Ok(JournalRecord::L2ZeroRun { at, count: 2.try_into().expect("not 0") })]);
}

// spec-test: QED-JRN-05, QED-JRN-06
#[test]
fn no_byte_of_a_block_is_left_to_chance() {
    let bytes = sealed(|_| ());
    for at in 0..4096 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let error = JournalBlock::parse(&damaged, &seed()).expect_err("damaged");
        assert!(error.is_absent(), "byte {at}: {error}");
    }
    for other in [
        JournalSeed::new(ImageUuid::new(UUID), Epoch::new(EPOCH + 1)),
        JournalSeed::new(ImageUuid::new([7; 16]), Epoch::new(EPOCH)),
    ] {
        let error = JournalBlock::parse(&bytes, &other).expect_err("of another epoch or image");
        assert!(matches!(error, JournalBlockError::Checksum { .. }), "{error}");
    }
    let error = JournalBlock::parse(&bytes[..4095], &seed()).expect_err("short");
    assert_eq!(error, JournalBlockError::Truncated { found: 4095 });
}

// spec-test: QED-JRN-04, QED-JRN-06
#[test]
fn an_intact_block_that_breaks_a_rule_is_not_absent() {
    let stable = JournalBlockError::Stable {
        stable: JournalSequence::new(0x0807_0605),
        sequence: JournalSequence::new(0x0807_0605),
    };
    type Change = fn(&mut [u8]);
    let cases: [(Change, Result<(), JournalBlockError>); 13] = [
        (|b| b[4] = 2, Err(JournalBlockError::Version { found: 2 })),
        (|b| b[24] = 5, Err(stable)),
        (|b| b[24..32].fill(0), Ok(())),
        (|b| b[32] = 0, Err(JournalBlockError::Generation)),
        (|b| b[48] = 3, Err(JournalBlockError::Index { index: 3, count: 3 })),
        (|b| b[48] = 2, Ok(())),
        (|b| b[52] = 1, Err(JournalBlockError::Index { index: 1, count: 1 })),
        (|b| b[56] = 25, Err(JournalBlockError::Used { found: 25 })),
        (|b| b[56..58].copy_from_slice(&4032_u16.to_le_bytes()), Ok(())),
        (
            |b| b[56..58].copy_from_slice(&4056_u16.to_le_bytes()),
            Err(JournalBlockError::Used { found: 4056 }),
        ),
        (|b| b[56] = 0, Err(JournalBlockError::Padding)),
        (|b| b[63] = 1, Err(JournalBlockError::Padding)),
        (|b| b[4095] = 1, Err(JournalBlockError::Padding)),
    ];
    for (change, expected) in cases {
        let bytes = sealed(change);
        let found = JournalBlock::parse(&bytes, &seed()).map(|_| ());
        assert_eq!(found, expected);
        assert!(found.is_ok() || found.is_err_and(|error| !error.is_absent()));
    }
}

// spec-test: QED-JRN-07, QED-JRN-08
#[test]
fn records_at_their_bounds() {
    let geometry = Geometry::new(65536, 4).expect("legal");
    let cluster = 65536;
    let max = 1_u64 << 63;
    let (place, value) = (
        |at| Err(JournalRecordError::Place { at }),
        |value| Err(JournalRecordError::Value { value }),
    );
    let cases = [
        (raw(1, 1, 8, 0), Ok(())),
        (raw(1, 1, 8, cluster), Ok(())),
        (raw(1, 1, 8, 1), value(1)),
        (raw(1, 2, 8, cluster), Err(JournalRecordError::Unused)),
        (raw(2, 1, 8, cluster), Ok(())),
        (raw(2, 1, 8, 0), value(0)),
        (raw(2, 1, 8, 1), value(1)),
        (raw(2, 1, 8, cluster + 1), value(cluster + 1)),
        (raw(2, 2, 8, max - 2 * cluster), Ok(())),
        (raw(2, 3, 8, max - 2 * cluster), value(max - 2 * cluster)),
        (raw(3, 1, 0, 0), Ok(())),
        (raw(3, 1, 1, 0), place(1)),
        (raw(3, 1, 7, 0), place(7)),
        (raw(3, 1, max - 8, 0), Ok(())),
        (raw(3, 2, max - 8, 0), place(max - 8)),
        (raw(3, u32::MAX, max - 8 * u64::from(u32::MAX), 0), Ok(())),
        (raw(3, 1, !7, 0), place(!7)),
        (raw(3, 1, 8, 1), Err(JournalRecordError::Unused)),
        (raw(4, 1, 8, 0), Ok(())),
        (raw(4, 1, 8, 1), Err(JournalRecordError::Unused)),
        (raw(5, 1, cluster, 0), Ok(())),
        (raw(5, 1, 0, 0), place(0)),
        (raw(5, 1, cluster + 8, 0), place(cluster + 8)),
        (raw(5, 2, max - cluster, 0), place(max - cluster)),
        (raw(5, 1, cluster, 1), Err(JournalRecordError::Unused)),
        (raw(0, 1, 8, 0), Err(JournalRecordError::Kind { found: 0 })),
        (raw(6, 1, 8, 0), Err(JournalRecordError::Kind { found: 6 })),
        (raw(3, 0, 8, 0), Err(JournalRecordError::Count { found: 0 })),
    ];
    for (raw, expected) in cases {
        let found = JournalRecord::parse(&raw, geometry);
        assert_eq!(found.map(|_| ()), expected, "{raw:?}");
        if let Ok(record) = found {
            assert_eq!(record.encode(geometry), raw);
        }
    }
}

#[test]
fn what_a_record_sets_and_names() {
    let geometry = Geometry::new(4096, 2).expect("legal");
    let at = HostOffset::new(0x8000);
    let first = HostCluster::new(9).expect("not 0");
    let count = 3.try_into().expect("not 0");
    let clusters = |number| Some((first, ClusterCount::new(number)));
    let cases = [
        (
            JournalRecord::L1Set { at, entry: L1Entry::Table(first) },
            Some((0x9000, 0, 1)),
            clusters(2),
        ),
        (JournalRecord::L1Set { at, entry: L1Entry::Unallocated }, Some((0, 0, 1)), None),
        (JournalRecord::L2SetRun { at, count, first }, Some((0x9000, 0x1000, 3)), clusters(3)),
        (JournalRecord::L2ZeroRun { at, count }, Some((1, 0, 3)), None),
        (JournalRecord::L2ClearRun { at, count }, Some((0, 0, 3)), None),
        (JournalRecord::FreeRun { first, count }, None, clusters(3)),
    ];
    for (record, sets, names) in cases {
        let slots = record.slots(geometry);
        assert_eq!(slots.map(|it| (it.first(), it.step(), it.count().get())), sets, "{record:?}");
        assert_eq!(record.clusters(geometry), names, "{record:?}");
        let end = slots.map(|it| (it.at(), it.end().get()));
        assert_eq!(end, sets.map(|(_, _, count)| (at, 0x8000 + 8 * u64::from(count))));
    }
}

fn header(header_size_clusters: u32) -> Header {
    let fields = HeaderFields {
        geometry: Geometry::new(4096, 1).expect("legal"),
        header_size_clusters,
        features: Features::empty(),
        compat_features: CompatFeatures::empty(),
        autoclear_features: AutoclearFeatures::empty(),
        l1_table_offset: HostOffset::new(u64::from(header_size_clusters) * 4096),
        image_size: 0,
    };
    Header::new(fields, u64::from(header_size_clusters + 1) * 4096).expect("legal")
}

fn section(offset: u64, len: u64, tail: u64, stable: u64) -> Vec<u8> {
    [offset, len, tail, stable].iter().flat_map(|number| number.to_le_bytes()).collect()
}

// spec-test: QED-JRN-01, QED-JRN-02, QED-JRN-03
#[test]
fn rings_at_their_bounds() {
    const GIB: u64 = 1 << 30;
    let clusters = 4 + (GIB >> 12);
    let large = header(u32::try_from(clusters).expect("fits"));
    let cases = [
        (section(16384, 32768, 1, 0), true),
        (section(16384, GIB, 1, 0), true),
        (section(12288, 32768, 1, 0), false),
        (section(16384 + 512, 32768, 1, 0), false),
        (section(16384, 32768 - 4096, 1, 0), false),
        (section(16384, 32768 + 512, 1, 0), false),
        (section(16384, GIB + 4096, 1, 0), false),
        (section(20480, GIB, 1, 0), false),
        (section(u64::MAX - 4095, 32768, 1, 0), false),
        (section(16384, 32768, 0, 0), false),
        (section(16384, 32768, 1 << 62, (1 << 62) - 1), true),
        (section(16384, 32768, (1 << 62) + 1, 1 << 62), false),
        (section(16384, 32768, 5, 4), true),
        (section(16384, 32768, 5, 3), false),
        (section(16384, 32768, 5, 12), true),
        (section(16384, 32768, 5, 13), false),
        (section(16384, 32768, 5, u64::MAX), false),
        (section(16384, 32768, 1, 0)[..31].to_vec(), false),
        ([section(16384, 32768, 1, 0), vec![0]].concat(), false),
    ];
    for (payload, accepted) in cases {
        let found = JournalRing::parse(&payload, &large);
        assert_eq!(found.is_ok(), accepted, "{payload:?}: {found:?}");
        if let Ok(ring) = found {
            assert_eq!(ring.encode().to_vec(), payload);
        }
    }
    // One block too many for this header area.
    let ring = section(16384, 32768, 1, 0);
    assert!(JournalRing::parse(&ring, &header(12)).is_ok());
    let found = JournalRing::parse(&ring, &header(11));
    assert!(matches!(found, Err(JournalRingError::Place { .. })), "{found:?}");
}

// spec-test: QED-JRN-03
#[test]
fn a_ring_takes_any_state_that_fits_its_blocks_and_stays_where_it_is() {
    let ring = JournalRing::new(HostOffset::new(16384), 32768, JournalSequence::FIRST);
    let ring = ring.expect("legal");
    for (tail, stable, accepted) in [
        (1, 0, true),
        (1, 8, true),
        (1, 9, false),
        (5, 3, false),
        (5, 4, true),
        (5, 12, true),
        (5, 13, false),
        (0, 0, false),
    ] {
        let (tail, stable) = (JournalSequence::new(tail), JournalSequence::new(stable));
        match ring.with_state(tail, stable) {
            Ok(next) => {
                assert!(accepted, "{tail:?} and {stable:?}");
                assert_eq!((next.tail(), next.stable()), (tail, stable));
                assert_eq!((next.offset().get(), next.len_bytes()), (16384, 32768));
            }
            Err(error) => {
                assert!(!accepted, "{tail:?} and {stable:?}: {error}");
                assert!(matches!(error, JournalRingError::Sequence { .. }), "{error}");
            }
        }
    }
}

// spec-test: QED-JRN-02
#[test]
fn no_ring_lies_where_the_backing_file_name_is() {
    let plain = header(12);
    for (offset, accepted) in [(16382, true), (16383, false), (16384, false), (49150, false)] {
        let named = plain.with_backing_name_at(Some((offset, 2)), 13 * 4096).expect("legal");
        let found = JournalRing::parse(&section(16384, 32768, 1, 0), &named);
        assert_eq!(found.is_ok(), accepted, "{offset}");
    }
}

// spec-test: QED-JRN-02
#[test]
fn a_ring_stays_clear_of_the_dirty_bitmap() {
    // 512 slots take one sector, right behind the superblocks.
    let bitmap = DirtyBitmap::of_new_image(Geometry::new(4096, 1).expect("legal"), 0);
    for (offset, overlaps) in [(16384, true), (20480, false)] {
        let ring = JournalRing::new(HostOffset::new(offset), 32768, JournalSequence::FIRST);
        assert_eq!(ring.expect("legal").overlaps(&bitmap), overlaps, "ring at {offset}");
    }
    let payload = section(32768, 512, 0, 0);
    let behind = DirtyBitmap::parse(&payload[..24], &header(12)).expect("legal");
    for (offset, overlaps) in [(16384, true), (32768, true), (36864, false)] {
        let ring = JournalRing::new(HostOffset::new(offset), 32768, JournalSequence::FIRST);
        assert_eq!(ring.expect("legal").overlaps(&behind), overlaps, "ring at {offset}");
    }
}

// spec-test: QED-JRN-03, QED-JRN-09
#[test]
fn where_blocks_lie_and_how_many_make_a_commit() {
    let ring = |blocks: u64| {
        JournalRing::new(HostOffset::new(16384), blocks * 4096, JournalSequence::FIRST)
            .expect("legal")
    };
    for (sequence, offset) in [(1, 20480), (7, 45056), (8, 16384), (9, 20480), (u64::MAX, 45056)] {
        let found = ring(8).offset_of(JournalSequence::new(sequence));
        assert_eq!(found.get(), offset, "block {sequence}");
    }
    for (blocks, most) in [(8, 4), (9, 4), (511, 255), (512, 256), (262_144, 256)] {
        assert_eq!(ring(blocks).max_commit_blocks(), most, "{blocks} blocks");
    }
}
