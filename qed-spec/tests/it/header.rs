//! Each header field at its interesting values; tables here decide what is accepted.

use qed_spec::{Features, Header, HeaderError, HeaderFields, HostOffset};

use crate::image::{CLUSTER_SIZES, Fields, TABLE_SIZES, edges32, edges64};

/// Longer than any table of the tests.
const LONG_FILE: u64 = 1 << 40;

fn parse(fields: Fields, file_len: u64) -> Result<Header, HeaderError> {
    Header::parse(&fields.bytes(), file_len, Features::CLASSIC)
}

#[track_caller]
fn check(fields: Fields, file_len: u64, expected: Result<(), HeaderError>) {
    let parsed = parse(fields, file_len);
    assert_eq!(parsed.map(|_| ()), expected, "{fields:?} in {file_len} bytes");
    if let Ok(header) = parsed {
        assert_eq!(header.encode(), fields.bytes(), "the round trip changes nothing");
        let again = Header::new(*header.fields(), file_len);
        assert_eq!(again.map(|header| *header.fields()), Ok(*header.fields()));
    }
}

// spec-test: QED-HDR-01
#[test]
fn every_field_lies_where_the_table_says() {
    let fields = Fields {
        cluster_size: 0x2000,
        table_size: 2,
        header_size: 3,
        features: 0x7,
        compat_features: 0x1112_1314_1516_1718,
        autoclear_features: 0x2122_2324_2526_2728,
        l1_table_offset: 0x000a_0000,
        image_size: 0x0020_0200,
        name_offset: 0x101,
        name_len: 0x42,
        ..Fields::CLASSIC
    };
    let header = parse(fields, LONG_FILE).expect("legal");
    assert_eq!(header.geometry().cluster_size_bytes(), 0x2000);
    assert_eq!(header.geometry().table_size_clusters(), 2);
    assert_eq!(header.header_area_len_bytes(), 3 * 0x2000);
    assert_eq!(header.features().bits(), 7);
    assert_eq!(header.fields().compat_features.bits(), 0x1112_1314_1516_1718);
    assert_eq!(header.fields().autoclear_features.bits(), 0x2122_2324_2526_2728);
    assert_eq!(header.fields().l1_table_offset, HostOffset::new(0x000a_0000));
    assert_eq!(header.image_size(), 0x0020_0200);
    assert_eq!(header.backing_name_place(), Some((0x101, 0x42)));
    assert_eq!(header.encode(), fields.bytes());
}

// spec-test: QED-HDR-01
#[test]
fn fewer_than_64_bytes_are_no_header_and_more_do_not_matter() {
    let mut bytes = Fields::CLASSIC.bytes().to_vec();
    for len in 0..64 {
        let short = Header::parse(&bytes[..len], LONG_FILE, Features::CLASSIC);
        assert_eq!(short, Err(HeaderError::Truncated { found: len as u64 }));
    }
    let exact = Header::parse(&bytes, LONG_FILE, Features::CLASSIC);
    bytes.extend([0xff; 448]);
    assert!(exact.is_ok());
    assert_eq!(Header::parse(&bytes, LONG_FILE, Features::CLASSIC), exact);
}

// spec-test: QED-HDR-02
#[test]
fn each_byte_of_the_magic_counts() {
    for position in 0..4 {
        for value in 0..=255 {
            let mut magic = *b"QED\0";
            magic[position] = value;
            let legal = magic == *b"QED\0";
            let expected = if legal { Ok(()) } else { Err(HeaderError::Magic { found: magic }) };
            check(Fields { magic, ..Fields::CLASSIC }, LONG_FILE, expected);
        }
    }
}

// spec-test: QED-HDR-03
#[test]
fn cluster_size_is_one_of_fifteen() {
    for cluster_size in edges32().into_iter().chain([12288, 65535]) {
        // The L1 table and the disk are legal for every cluster size that is.
        let fields = Fields {
            cluster_size,
            table_size: 1,
            l1_table_offset: 1 << 26,
            image_size: 512,
            ..Fields::CLASSIC
        };
        let legal = CLUSTER_SIZES.contains(&cluster_size);
        let refused = HeaderError::ClusterSize { found: cluster_size };
        check(fields, LONG_FILE, if legal { Ok(()) } else { Err(refused) });
    }
}

// spec-test: QED-HDR-04
#[test]
fn table_size_is_one_of_five() {
    for table_size in edges32() {
        let legal = TABLE_SIZES.contains(&table_size);
        let refused = HeaderError::TableSize { found: table_size };
        let fields = Fields { table_size, ..Fields::CLASSIC };
        check(fields, LONG_FILE, if legal { Ok(()) } else { Err(refused) });
    }
}

// spec-test: QED-HDR-05, QED-HDR-06, QED-HDR-08
#[test]
fn header_size_is_from_one_to_the_file_and_before_the_l1_table() {
    const CLUSTERS: u64 = 100;
    for header_size in edges32().into_iter().chain([10, 11, 99, 100, 101]) {
        let l1_table_offset = 10 * 65536;
        let fields = Fields { header_size, l1_table_offset, ..Fields::CLASSIC };
        // The last of the 100 clusters is there in part.
        let file_len = CLUSTERS * 65536 - 1;
        let found = HostOffset::new(l1_table_offset);
        let expected = match header_size {
            0 | 101.. => Err(HeaderError::HeaderSize { found: header_size, max: CLUSTERS }),
            1..=10 => Ok(()),
            11..=100 => Err(HeaderError::L1TableOffset { found, file_len }),
        };
        check(fields, file_len, expected);
    }
}

// spec-test: QED-HDR-06
#[test]
fn the_l1_table_is_aligned_behind_the_header_area_and_inside_the_file() {
    const FILE_LEN: u64 = 20 * 65536;
    let clusters = (0..=21).map(|cluster| cluster * 65536);
    let unaligned = [65535, 65537, 65536 + 512, 16 * 65536 + 4096];
    for offset in edges64().into_iter().chain(clusters).chain(unaligned) {
        // A header area of 2 clusters, a table of 4: it may start at clusters 2 to 16.
        let legal = offset % 65536 == 0 && (2..=16).contains(&(offset / 65536));
        let fields = Fields { header_size: 2, l1_table_offset: offset, ..Fields::CLASSIC };
        let found = HostOffset::new(offset);
        let refused = HeaderError::L1TableOffset { found, file_len: FILE_LEN };
        check(fields, FILE_LEN, if legal { Ok(()) } else { Err(refused) });
    }
}

// spec-test: QED-HDR-06
#[test]
fn a_file_one_byte_short_of_the_l1_table_is_refused() {
    let end = 5 * 65536;
    let found = HostOffset::new(65536);
    check(Fields::CLASSIC, end, Ok(()));
    let refused = HeaderError::L1TableOffset { found, file_len: end - 1 };
    check(Fields::CLASSIC, end - 1, Err(refused));
    for file_len in [0, 63, 64, 4096] {
        assert!(parse(Fields::CLASSIC, file_len).is_err());
    }
}

// spec-test: QED-HDR-07
#[test]
fn image_size_is_whole_sectors_and_what_the_tables_map() {
    // 64 KiB clusters and tables of 4: 32768 * 32768 * 65536 bytes.
    const MAX: u64 = 1 << 46;
    for image_size in edges64().into_iter().chain([MAX - 512, MAX + 512, !511]) {
        let expected = if image_size % 512 != 0 {
            Err(HeaderError::ImageSizeUnaligned { found: image_size })
        } else if image_size > MAX {
            Err(HeaderError::ImageSizeTooLarge { found: image_size, max: MAX })
        } else {
            Ok(())
        };
        check(Fields { image_size, ..Fields::CLASSIC }, LONG_FILE, expected);
    }
}

// spec-test: QED-HDR-07, QED-MAP-02
#[test]
fn the_largest_shape_takes_the_largest_disk() {
    let fields = Fields {
        cluster_size: 1 << 26,
        table_size: 16,
        l1_table_offset: 1 << 26,
        image_size: u64::MAX - 511,
        ..Fields::CLASSIC
    };
    check(fields, LONG_FILE, Ok(()));
}

#[test]
fn extreme_numbers_together_are_an_error_and_no_panic() {
    for value in edges64() {
        let narrow = u32::try_from(value >> 32).expect("32 bits");
        for cluster_size in [4096, 1 << 26, narrow] {
            let fields = Fields {
                cluster_size,
                table_size: 16,
                header_size: u32::MAX,
                features: 7,
                l1_table_offset: value,
                image_size: value,
                name_offset: narrow,
                name_len: narrow,
                ..Fields::CLASSIC
            };
            for file_len in [0, value, u64::MAX] {
                // header_size * cluster_size reaches 2^58: nothing here may overflow.
                let _ = parse(fields, file_len).map(|header| header.header_area_len_bytes());
            }
        }
    }
}

#[test]
fn a_changed_header_has_the_new_fields_and_the_old_name_and_keeps_the_rules() {
    const FILE_LEN: u64 = 5 * 65536;
    let old = Fields { features: 1, name_offset: 100, name_len: 9, ..Fields::CLASSIC };
    let header = parse(old, FILE_LEN).expect("legal");
    let fields = HeaderFields { image_size: 1 << 20, ..*header.fields() };
    let changed = header.with_fields(fields, FILE_LEN).expect("legal");
    assert_eq!(changed.encode(), Fields { image_size: 1 << 20, ..old }.bytes());
    let fields = HeaderFields { image_size: 513, ..*header.fields() };
    let refused = header.with_fields(fields, FILE_LEN);
    assert_eq!(refused, Err(HeaderError::ImageSizeUnaligned { found: 513 }));
}

#[test]
fn messages_name_the_place_and_the_rule() {
    let cases = [
        (
            Fields { magic: *b"QEMU", ..Fields::CLASSIC },
            r#"not a QED image: bytes 0..4 are [51, 45, 4d, 55], not "QED\0""#,
        ),
        (
            Fields { cluster_size: 5000, ..Fields::CLASSIC },
            "cluster size 5000 at byte 4 is not a power of two in 4096..=67108864",
        ),
        (
            Fields { header_size: 0, ..Fields::CLASSIC },
            "header size 0 clusters at byte 12 is not in 1..=16777216",
        ),
        (
            Fields { image_size: 513, ..Fields::CLASSIC },
            "image size 513 at byte 48 is not a multiple of 512",
        ),
    ];
    for (fields, expected) in cases {
        let text = parse(fields, LONG_FILE).expect_err("refused").to_string();
        assert_eq!(text, expected);
    }
}
