//! All 64 bits of each of the three classes.

use qed_spec::{AutoclearFeatures, CompatFeatures, Features, Header, HeaderError, SectionType};

use crate::image::Fields;

/// The incompatible bits that have a name, from the table of the specification.
const NAMED: [(u32, &str); 8] = [
    (0, "BACKING_FILE"),
    (1, "NEED_CHECK"),
    (2, "BACKING_FORMAT_NO_PROBE"),
    (32, "JOURNAL_ACTIVE"),
    (33, "SNAPSHOTS"),
    (34, "COMPRESSED"),
    (35, "ENCRYPTED"),
    (36, "CONVERSION_HOLD"),
];

fn parse(fields: Fields, supported: Features) -> Result<Header, HeaderError> {
    Header::parse(&fields.bytes(), 5 * 65536, supported)
}

fn with_bit(bit: u32) -> Fields {
    Fields { features: 1 << bit, name_offset: 64, name_len: 1, ..Fields::CLASSIC }
}

// spec-test: QED-FEAT-01, QED-FEAT-04, QED-FEAT-05
#[test]
fn each_incompatible_bit_is_supported_or_refused_by_number_and_name() {
    for bit in 0..64 {
        let name = NAMED.iter().find(|(named, _)| *named == bit).map(|(_, name)| *name);
        let classic = parse(with_bit(bit), Features::CLASSIC);
        if bit < 3 {
            assert_eq!(classic.map(|header| header.features().bits()), Ok(1 << bit));
        } else {
            assert_eq!(classic, Err(HeaderError::UnsupportedFeature { bit, name }));
        }
        assert_eq!(parse(with_bit(bit), Features::all()).is_ok(), name.is_some(), "bit {bit}");
        let none = parse(with_bit(bit), Features::empty());
        assert_eq!(none, Err(HeaderError::UnsupportedFeature { bit, name }));
    }
}

#[test]
fn the_message_names_the_bit() {
    let text = |bit| parse(with_bit(bit), Features::CLASSIC).expect_err("refused").to_string();
    assert_eq!(text(34), "unsupported QED feature bit 34 (COMPRESSED)");
    assert_eq!(text(3), "unsupported QED feature bit 3");
}

// spec-test: QED-FEAT-01, QED-HDR-10
#[test]
fn an_unsupported_bit_is_told_before_fields_that_it_may_change() {
    let fields = Fields { cluster_size: 1, image_size: 1, ..with_bit(40) };
    let refused = parse(fields, Features::CLASSIC);
    assert_eq!(refused, Err(HeaderError::UnsupportedFeature { bit: 40, name: None }));
}

// spec-test: QED-FEAT-02, QED-FEAT-03
#[test]
fn compatible_and_autoclear_bits_never_refuse_and_are_kept() {
    for bit in 0..64 {
        let fields = Fields {
            compat_features: 1 << bit,
            autoclear_features: !(1 << bit),
            ..Fields::CLASSIC
        };
        let header = parse(fields, Features::CLASSIC).expect("opens");
        assert_eq!(header.fields().compat_features, CompatFeatures::from_bits_retain(1 << bit));
        let autoclear = AutoclearFeatures::from_bits_retain(!(1 << bit));
        assert_eq!(header.fields().autoclear_features, autoclear);
        assert_eq!(header.encode(), fields.bytes());
    }
}

// spec-test: QED-FEAT-06, QED-FEAT-07
#[test]
fn autoclear_bits_have_the_numbers_of_the_table_and_compatible_bits_none() {
    let named: Vec<_> = AutoclearFeatures::all()
        .iter_names()
        .map(|(name, bit)| (bit.bits().trailing_zeros(), name))
        .collect();
    let expected = [
        (32, "TABLE_DIRTY"),
        (33, "FREELIST"),
        (34, "PHYSICAL_SIZE"),
        (35, "JOURNAL"),
        (36, "CONVERSION_UNDO"),
        (37, "OWNED"),
    ];
    assert_eq!(named, expected);
    assert!(CompatFeatures::all().is_empty());
}

/// For each type of section the bits that make it believed: features, autoclear.
const GATES: [(u32, u64, u64); 14] = [
    (0, 0, 0),
    (1, u64::MAX, u64::MAX),
    (2, u64::MAX, u64::MAX),
    (3, 1 << 32, 1 << 35),
    (4, 0, 1 << 34),
    (5, 0, 1 << 32),
    (6, 0, 1 << 33),
    (7, 1 << 33, 0),
    (8, 1 << 35, 0),
    (9, 1 << 34, 0),
    (10, 1 << 36, 1 << 36),
    (11, 0, 1 << 37),
    (12, 0, 0),
    (u32::MAX, 0, 0),
];

// spec-test: QED-SB-08, QED-SB-14
#[test]
fn a_section_is_believed_by_its_bits_alone() {
    for (number, features, autoclear) in GATES {
        let kind = SectionType::new(number);
        let always = features & autoclear == u64::MAX;
        let (no_features, no_autoclear) = (Features::empty(), AutoclearFeatures::empty());
        assert_eq!(kind.is_active(no_features, no_autoclear), always, "{kind}");
        assert_eq!(kind.name().is_some(), (1..=11).contains(&number), "{kind}");
        for bit in 0..64 {
            let set = Features::from_bits_retain(1 << bit);
            assert_eq!(kind.is_active(set, no_autoclear), features >> bit & 1 == 1, "{kind} {bit}");
            let set = AutoclearFeatures::from_bits_retain(1 << bit);
            assert_eq!(kind.is_active(no_features, set), autoclear >> bit & 1 == 1, "{kind} {bit}");
        }
    }
}
