//! The hostile QCOW2 images: what is wrong with each, and what must come of it.

use qed_convert::qcow2::{
    Qcow2Corruption, Qcow2EntryFault as Fault, Qcow2FormatError as Bad, Qcow2Part,
    Qcow2StreamFault as StreamFault,
};
use qed_spec::{BackingNameError, GuestOffset, HostOffset, L1Index, L2Index};

use crate::lab::{Random, noise};
use crate::qcow2_crafted::*;

/// What must come of an image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expect {
    /// Opening is refused.
    Refused(Bad),
    /// It opens, and reading all of it or mapping it fails.
    Corrupt(Qcow2Corruption),
    /// It opens and reads as the image that nobody touched.
    Reads,
}

/// Name, damage and outcome.
pub(crate) type Case = (&'static str, fn(&mut Crafted), Expect);

use Expect::{Corrupt, Reads, Refused};
use Qcow2Part::{L1Table, RefcountTable, SnapshotTable};

const ON_64_BITS: u64 = i64::MAX as u64;

pub(crate) const HEADER: &[Case] = &[
    ("untouched", |_| {}, Reads),
    ("dirty-and-corrupt-bits", |image| image.u64(INCOMPATIBLE, 3), Reads),
    ("a-file-of-3-bytes", |image| image.bytes.truncate(3), Refused(Bad::Magic { found: [0; 4] })),
    (
        "a-file-of-50-bytes",
        |image| image.bytes.truncate(50),
        Refused(Bad::TooShort { file_len: 50, needed: 72 }),
    ),
    (
        "a-file-of-100-bytes",
        |image| image.bytes.truncate(100),
        Refused(Bad::TooShort { file_len: 100, needed: 104 }),
    ),
    ("other-magic", |image| image.put(0, b"QED\0"), Refused(Bad::Magic { found: *b"QED\0" })),
    ("version-0", |image| image.u32(VERSION, 0), Refused(Bad::Version { found: 0 })),
    ("version-1", |image| image.u32(VERSION, 1), Refused(Bad::Version { found: 1 })),
    ("version-4", |image| image.u32(VERSION, 4), Refused(Bad::Version { found: 4 })),
    (
        "largest-version",
        |image| image.u32(VERSION, u32::MAX),
        Refused(Bad::Version { found: u32::MAX }),
    ),
    ("clusters-of-256", |image| image.u32(CLUSTER_BITS, 8), Refused(Bad::ClusterBits { found: 8 })),
    (
        "clusters-of-4-mib",
        |image| image.u32(CLUSTER_BITS, 22),
        Refused(Bad::ClusterBits { found: 22 }),
    ),
    (
        "clusters-of-2-64",
        |image| image.u32(CLUSTER_BITS, 64),
        Refused(Bad::ClusterBits { found: 64 }),
    ),
    (
        "header-of-96-bytes",
        |image| image.u32(HEADER_LEN, 96),
        Refused(Bad::HeaderLength { found: 96, limit: CLUSTER }),
    ),
    (
        "header-of-108-bytes",
        |image| image.u32(HEADER_LEN, 108),
        Refused(Bad::HeaderLength { found: 108, limit: CLUSTER }),
    ),
    (
        "header-longer-than-a-cluster",
        |image| image.u32(HEADER_LEN, 4104),
        Refused(Bad::HeaderLength { found: 4104, limit: CLUSTER }),
    ),
    (
        "longest-header",
        |image| image.u32(HEADER_LEN, u32::MAX),
        Refused(Bad::HeaderLength { found: u32::MAX, limit: CLUSTER }),
    ),
    ("aes", |image| image.u32(CRYPT_METHOD, 1), Refused(Bad::Encrypted { found: 1 })),
    ("luks", |image| image.u32(CRYPT_METHOD, 2), Refused(Bad::Encrypted { found: 2 })),
    (
        "unknown-encryption",
        |image| image.u32(CRYPT_METHOD, 3),
        Refused(Bad::Encrypted { found: 3 }),
    ),
    (
        "data-in-another-file",
        |image| image.u64(INCOMPATIBLE, 1 << 2),
        Refused(Bad::ExternalDataFile),
    ),
    (
        "unknown-bit-5",
        |image| image.u64(INCOMPATIBLE, 1 << 5),
        Refused(Bad::UnsupportedFeature { bit: 5, name: None }),
    ),
    (
        "unknown-bit-63",
        |image| image.u64(INCOMPATIBLE, 1 << 63),
        Refused(Bad::UnsupportedFeature { bit: 63, name: None }),
    ),
    (
        "zstd-without-its-bit",
        |image| image.put(COMPRESSION, &[1]),
        Refused(Bad::CompressionBit { found: 1, bit: false }),
    ),
    (
        "deflate-with-the-compression-bit",
        |image| image.u64(INCOMPATIBLE, 1 << 3),
        Refused(Bad::CompressionBit { found: 0, bit: true }),
    ),
    (
        "unknown-compression",
        |image| image.put(COMPRESSION, &[2]),
        Refused(Bad::CompressionType { found: 2 }),
    ),
    (
        "extended-l2-with-4-kib-clusters",
        |image| image.u64(INCOMPATIBLE, 1 << 4),
        Refused(Bad::ExtendedL2ClusterBits { cluster_bits: 12 }),
    ),
    (
        "refcounts-of-128-bits",
        |image| image.u32(REFCOUNT_ORDER, 7),
        Refused(Bad::RefcountOrder { found: 7 }),
    ),
    (
        "widest-refcounts",
        |image| image.u32(REFCOUNT_ORDER, u32::MAX),
        Refused(Bad::RefcountOrder { found: u32::MAX }),
    ),
    ("a-size-of-513", |image| image.u64(IMAGE_SIZE, 513), Refused(Bad::ImageSize { found: 513 })),
    (
        "largest-size",
        |image| image.u64(IMAGE_SIZE, u64::MAX),
        Refused(Bad::ImageSize { found: u64::MAX }),
    ),
    (
        "a-size-of-2-63",
        |image| image.u64(IMAGE_SIZE, 1 << 63),
        Refused(Bad::L1TooSmall { table: L1Table, found: 1, needed: 1 << 42 }),
    ),
];

pub(crate) const TABLES: &[Case] = &[
    (
        "no-l1-table",
        |image| image.u32(L1_ENTRIES, 0),
        Refused(Bad::L1TooSmall { table: L1Table, found: 0, needed: 1 }),
    ),
    (
        "l1-table-of-32-gib",
        |image| image.u32(L1_ENTRIES, u32::MAX),
        Refused(Bad::TableTooLarge { table: L1Table, len: 34_359_738_360, limit: 32 << 20 }),
    ),
    (
        "l1-table-past-the-end",
        |image| image.u32(L1_ENTRIES, 4 << 20),
        Refused(Bad::TablePastEnd { table: L1Table, offset: L1_TABLE, file_len: FILE_LEN }),
    ),
    (
        "unaligned-l1-table",
        |image| image.u64(L1_OFFSET, L1_TABLE + 8),
        Refused(Bad::TableUnaligned { table: L1Table, offset: L1_TABLE + 8 }),
    ),
    (
        "l1-table-whose-end-overflows",
        |image| image.u64(L1_OFFSET, 0u64.wrapping_sub(CLUSTER)),
        Refused(Bad::TablePastEnd {
            table: L1Table,
            offset: 0u64.wrapping_sub(CLUSTER),
            file_len: ON_64_BITS,
        }),
    ),
    (
        "no-refcount-table",
        |image| image.u32(REFCOUNT_CLUSTERS, 0),
        Refused(Bad::TableMissing { table: RefcountTable }),
    ),
    (
        "refcount-table-of-16-tib",
        |image| image.u32(REFCOUNT_CLUSTERS, u32::MAX),
        Refused(Bad::TableTooLarge {
            table: RefcountTable,
            len: u32::MAX as u64 * CLUSTER,
            limit: 8 << 20,
        }),
    ),
    (
        "unaligned-refcount-table",
        |image| image.u64(REFCOUNT_OFFSET, 1),
        Refused(Bad::TableUnaligned { table: RefcountTable, offset: 1 }),
    ),
    (
        "refcount-table-past-2-63",
        |image| image.u64(REFCOUNT_OFFSET, 1 << 63),
        Refused(Bad::TablePastEnd { table: RefcountTable, offset: 1 << 63, file_len: ON_64_BITS }),
    ),
    (
        "too-many-snapshots",
        |image| image.u32(SNAPSHOT_COUNT, 65537),
        Refused(Bad::TableTooLarge { table: SnapshotTable, len: 65537 * 40, limit: 65536 * 40 }),
    ),
    (
        "2-32-snapshots",
        |image| image.u32(SNAPSHOT_COUNT, u32::MAX),
        Refused(Bad::TableTooLarge {
            table: SnapshotTable,
            len: u32::MAX as u64 * 40,
            limit: 65536 * 40,
        }),
    ),
    (
        "more-snapshots-than-the-file-holds",
        |image| image.u32(SNAPSHOT_COUNT, 65536),
        Refused(Bad::TablePastEnd { table: SnapshotTable, offset: 0, file_len: FILE_LEN }),
    ),
    (
        "unaligned-snapshot-table",
        |image| image.u64(SNAPSHOT_OFFSET, 40),
        Refused(Bad::TableUnaligned { table: SnapshotTable, offset: 40 }),
    ),
    (
        "snapshot-with-huge-extra-data",
        |image| {
            image.snapshot(L1_TABLE, 1, SIZE);
            image.u32(at(SNAPSHOTS) + 36, 1025);
        },
        Refused(Bad::SnapshotEntry { index: 0, at: SNAPSHOTS }),
    ),
    (
        "snapshot-with-a-name-past-the-end",
        |image| {
            image.snapshot(L1_TABLE, 1, SIZE);
            image.put(at(SNAPSHOTS) + 14, &[0xff, 0xff]);
        },
        Refused(Bad::SnapshotEntry { index: 0, at: SNAPSHOTS }),
    ),
    (
        "second-snapshot-past-the-end",
        |image| {
            image.snapshot(L1_TABLE, 1, SIZE);
            image.u32(SNAPSHOT_COUNT, 2);
            image.bytes.truncate(at(SNAPSHOTS) + 80);
        },
        Refused(Bad::SnapshotEntry { index: 1, at: SNAPSHOTS + 64 }),
    ),
];

pub(crate) const EXTENSION_AREA: &[Case] = &[
    ("unknown-extension", |image| image.extension(0x1234_5678, 5, b"hello"), Reads),
    (
        "longest-extension",
        |image| image.extension(0x1234_5678, u32::MAX, b""),
        Refused(Bad::ExtensionTooLong { kind: 0x1234_5678, at: 112 }),
    ),
    (
        "second-extension-too-long",
        |image| {
            image.extension(1, 0, b"");
            image.u32(EXTENSIONS + 8, 2);
            image.u32(EXTENSIONS + 12, 4096 - 128 + 1);
        },
        Refused(Bad::ExtensionTooLong { kind: 2, at: 120 }),
    ),
    (
        "extension-into-the-backing-name",
        |image| {
            image.extension(1, 100, b"");
            image.u64(BACKING_OFFSET, 160);
            image.u32(BACKING_LEN, 4);
        },
        Refused(Bad::ExtensionTooLong { kind: 1, at: 112 }),
    ),
    (
        "long-backing-format",
        |image| image.extension(0xe279_2aca, 16, b"0123456789abcdef"),
        Refused(Bad::ExtensionLength { kind: 0xe279_2aca, len: 16 }),
    ),
    (
        "short-bitmaps-extension",
        |image| image.extension(0x2385_2875, 8, &[0; 8]),
        Refused(Bad::ExtensionLength { kind: 0x2385_2875, len: 8 }),
    ),
    (
        "unknown-bit-with-a-name",
        |image| {
            let mut row = [0; 48];
            row[..11].copy_from_slice(b"\0\x09time\x1bwarp");
            image.extension(0x6803_f857, 48, &row);
            image.u64(INCOMPATIBLE, 1 << 9);
        },
        Refused(Bad::UnsupportedFeature { bit: 9, name: None }),
    ),
    (
        "backing-name-past-all-files",
        |image| image.u64(BACKING_OFFSET, u64::MAX),
        Refused(Bad::BackingNamePlace { offset: u64::MAX, len: 0 }),
    ),
    (
        "backing-name-inside-the-header",
        |image| {
            image.u64(BACKING_OFFSET, 8);
            image.u32(BACKING_LEN, 8);
        },
        Refused(Bad::BackingNamePlace { offset: 8, len: 8 }),
    ),
    (
        "backing-name-of-1024-bytes",
        |image| {
            image.u64(BACKING_OFFSET, 200);
            image.u32(BACKING_LEN, 1024);
        },
        Refused(Bad::BackingNamePlace { offset: 200, len: 1024 }),
    ),
    (
        "backing-name-past-cluster-0",
        |image| {
            image.u64(BACKING_OFFSET, 4000);
            image.u32(BACKING_LEN, 97);
        },
        Refused(Bad::BackingNamePlace { offset: 4000, len: 97 }),
    ),
    (
        "backing-name-with-nul",
        |image| {
            image.u64(BACKING_OFFSET, 200);
            image.u32(BACKING_LEN, 3);
            image.put(200, b"a\0b");
        },
        Refused(Bad::BackingName(BackingNameError::Nul { at: 1 })),
    ),
];

pub(crate) const ENTRIES: &[Case] = &[
    (
        "reserved-bits-of-an-l1-entry",
        |image| image.u64(at(L1_TABLE), 1),
        l1(1, Fault::ReservedBits),
    ),
    (
        "unaligned-l2-table",
        |image| image.u64(at(L1_TABLE), COPIED | (L2_TABLE + 512)),
        l1(COPIED | (L2_TABLE + 512), Fault::Unaligned),
    ),
    (
        "l2-table-into-nowhere",
        |image| image.u64(at(L1_TABLE), 0x00ff_ffff_ffff_f000),
        l1(0x00ff_ffff_ffff_f000, Fault::PastEnd),
    ),
    (
        "l2-table-half-past-the-end",
        |image| {
            image.u64(at(L1_TABLE), SNAPSHOTS + CLUSTER);
            image.bytes.truncate(at(FILE_LEN) - 2048);
        },
        l1(SNAPSHOTS + CLUSTER, Fault::PastEnd),
    ),
    ("reserved-l2-bits", |image| image.l2(0, DATA | 2), l2(0, DATA | 2, Fault::ReservedBits)),
    (
        "unaligned-data",
        |image| image.l2(0, COPIED | (DATA + 512)),
        l2(0, COPIED | (DATA + 512), Fault::Unaligned),
    ),
    ("data-into-nowhere", |image| image.l2(0, FILE_LEN), l2(0, FILE_LEN, Fault::PastEnd)),
    (
        "data-at-the-largest-offset",
        |image| image.l2(0, 0x00ff_ffff_ffff_f000),
        l2(0, 0x00ff_ffff_ffff_f000, Fault::PastEnd),
    ),
    (
        "zero-cluster-in-version-2",
        |image| {
            image.u32(VERSION, 2);
            image.l2(0, 1);
        },
        l2(0, 1, Fault::ReservedBits),
    ),
    (
        "compressed-into-nowhere",
        |image| image.l2(1, COMPRESSED | FILE_LEN),
        l2(1, COMPRESSED | FILE_LEN, Fault::PastEnd),
    ),
    (
        "compressed-at-the-largest-offset-and-length",
        |image| image.l2(1, COPIED - 1),
        l2(1, COPIED - 1, Fault::PastEnd),
    ),
    (
        "compressed-and-copied",
        |image| image.l2(1, COPIED | COMPRESSED | STREAM),
        l2(1, COPIED | COMPRESSED | STREAM, Fault::ReservedBits),
    ),
];

pub(crate) const STREAMS: &[Case] = &[
    ("not-deflate", |image| image.stream(&[0xff; 600]), stream(StreamFault::Invalid)),
    ("nothing-but-zeros", |image| image.stream(&[0; 600]), stream(StreamFault::Invalid)),
    (
        "deflate-that-ends-early",
        |image| image.stream(&deflated(b"ab")),
        stream(StreamFault::TooShort),
    ),
    (
        "deflate-cut-off",
        |image| {
            let whole = deflated(&noise(&mut Random::new(3), CLUSTER));
            image.stream(&whole);
            image.l2(1, COMPRESSED | STREAM);
        },
        stream(StreamFault::Invalid),
    ),
    (
        "deflate-with-one-byte-too-many",
        |image| image.stream(&deflated(&[7; 4097])),
        stream(StreamFault::TooLong),
    ),
    (
        "deflate-bomb",
        |image| image.stream(&deflated(&vec![0; 3 << 20])),
        stream(StreamFault::TooLong),
    ),
    (
        "zstd-several-frames-and-padding",
        |image| {
            let (first, second) = (zstd_frame(&text()[..1000]), zstd_frame(&text()[1000..]));
            image.zstd();
            image.stream(&[first, second, vec![0; 100]].concat());
        },
        Reads,
    ),
    (
        "not-zstd",
        |image| {
            image.zstd();
            image.stream(&deflated(&text()));
        },
        stream(StreamFault::Invalid),
    ),
    (
        "zstd-that-ends-early",
        |image| {
            image.zstd();
            image.stream(&zstd_frame(b"ab"));
            image.bytes.truncate(at(STREAM) + zstd_frame(b"ab").len());
        },
        // The zeros that follow are no frame.
        stream(StreamFault::Invalid),
    ),
    (
        "zstd-bomb",
        |image| {
            image.zstd();
            image.stream(&zstd_frame(&vec![0; 64 << 20]));
        },
        stream(StreamFault::TooLong),
    ),
    (
        "zstd-that-asks-for-a-window-of-128-mib",
        |image| {
            image.zstd();
            // Magic, descriptor without a size, window 2^27, one empty last block.
            image.stream(&[0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0]);
        },
        stream(StreamFault::Invalid),
    ),
];

const fn l1(value: u64, fault: Fault) -> Expect {
    Corrupt(Qcow2Corruption::L1Entry { l1: L1Index::new(0), value, fault })
}

const fn l2(index: u64, value: u64, fault: Fault) -> Expect {
    let (l1, l2) = (L1Index::new(0), L2Index::new(index));
    Corrupt(Qcow2Corruption::L2Entry { l1, l2, value, fault })
}

const fn stream(fault: StreamFault) -> Expect {
    let (guest, host) = (GuestOffset::new(CLUSTER), HostOffset::new(STREAM));
    Corrupt(Qcow2Corruption::Stream { guest, host, fault })
}
