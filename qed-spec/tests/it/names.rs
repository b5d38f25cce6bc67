//! Backing file names: their bytes and their place.

use qed_spec::{BackingName, BackingNameError, Features, Header, HeaderError};

use crate::image::{Fields, edges32, header};

// spec-test: QED-BACK-03
#[test]
fn a_name_has_1_to_4095_bytes_without_nul() {
    let long = [b'x'; 4096];
    let cases: [(&[u8], Result<(), BackingNameError>); 7] = [
        (b"", Err(BackingNameError::Empty)),
        (b"a", Ok(())),
        (b"../\xff weird\n", Ok(())),
        (&long[..4095], Ok(())),
        (&long, Err(BackingNameError::TooLong { found: 4096 })),
        (b"\0", Err(BackingNameError::Nul { at: 0 })),
        (b"ab\0c\0", Err(BackingNameError::Nul { at: 2 })),
    ];
    for (bytes, expected) in cases {
        assert_eq!(BackingName::new(bytes).map(|_| ()), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_name_prints_without_control_bytes() {
    let name = BackingName::new(b"a\x1b\xff").expect("legal");
    assert_eq!(name.to_string(), r"a\x1b\xff");
    assert_eq!(format!("{name:?}"), r#"BackingName("a\x1b\xff")"#);
}

// spec-test: QED-BACK-01
#[test]
fn a_name_lies_behind_the_header_and_inside_its_area() {
    let area = 65536;
    let lens = edges32().into_iter().chain([4094]);
    for len in lens {
        for offset in edges32().into_iter().chain([63, 65, area - 4095, area - len.min(area)]) {
            let fields =
                Fields { features: 1, name_offset: offset, name_len: len, ..Fields::CLASSIC };
            let parsed = Header::parse(&fields.bytes(), 5 * 65536, Features::CLASSIC);
            let end = u64::from(offset) + u64::from(len);
            let expected = match len {
                0 => Err(BackingNameError::Empty),
                1..=4095 if offset >= 64 && end <= u64::from(area) => Ok(Some((offset, len))),
                1..=4095 => Err(BackingNameError::OutsideHeaderArea {
                    offset: offset.into(),
                    end,
                    area_end: area.into(),
                }),
                _ => Err(BackingNameError::TooLong { found: len.into() }),
            };
            let found = parsed.map(|header| header.backing_name_place());
            assert_eq!(found, expected.map_err(HeaderError::BackingName), "{offset} {len}");
        }
    }
}

// spec-test: QED-BACK-01
#[test]
fn without_a_backing_file_the_place_means_nothing() {
    for edge in edges32() {
        let fields = Fields { name_offset: edge, name_len: edge, ..Fields::CLASSIC };
        let header = Header::parse(&fields.bytes(), 5 * 65536, Features::CLASSIC).expect("opens");
        assert_eq!(header.backing_name_place(), None);
        assert_eq!(header.backing_name(&[]), Ok(None));
        assert_eq!(header.encode(), fields.bytes(), "kept as they were");
    }
}

// spec-test: QED-BACK-02
#[test]
fn a_name_is_read_from_as_many_bytes_as_it_needs() {
    let header = header(4096, 1, Features::empty(), Some((100, 5)));
    let mut bytes = vec![0; 4096];
    bytes[100..105].copy_from_slice(b"a.raw");
    bytes[105] = b'x';
    let name = header.backing_name(&bytes[..105]).expect("legal").expect("there is one");
    assert_eq!(name.as_bytes(), b"a.raw");
    for found in [0, 64, 99, 100, 104] {
        let short = header.backing_name(&bytes[..found]);
        let needed = BackingNameError::NeedMore { needed: 105, found: found as u64 };
        assert_eq!(short, Err(needed));
    }
    bytes[102] = 0;
    assert_eq!(header.backing_name(&bytes), Err(BackingNameError::Nul { at: 2 }));
}

// spec-test: QED-FEAT-09
#[test]
fn removing_the_name_clears_both_bits() {
    let features = Features::BACKING_FORMAT_NO_PROBE | Features::NEED_CHECK;
    let with = header(4096, 1, features, Some((64, 9)));
    assert!(with.features().contains(Features::BACKING_FILE | Features::BACKING_FORMAT_NO_PROBE));
    let without = with.with_backing_name_at(None, 1 << 20).expect("legal");
    assert_eq!(without.features(), Features::NEED_CHECK);
    assert_eq!(without.backing_name_place(), None);
}
