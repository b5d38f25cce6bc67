//! The sections MODE and TABLE_DIRTY: every bound, and the place of every mark.

use qed_spec::{
    AutoclearFeatures, CompatFeatures, ConsistencyMode, DirtyBitmap, DirtyBitmapError, Features,
    Geometry, Header, HeaderFields, HostOffset, L1Index, ModeError,
};

fn header(geometry: Geometry, header_size_clusters: u32, image_size: u64) -> Header {
    let area = u64::from(header_size_clusters) * geometry.cluster_size_bytes();
    let fields = HeaderFields {
        geometry,
        header_size_clusters,
        features: Features::empty(),
        compat_features: CompatFeatures::empty(),
        autoclear_features: AutoclearFeatures::TABLE_DIRTY,
        l1_table_offset: HostOffset::new(area),
        image_size,
    };
    Header::new(fields, area + geometry.table_size_bytes()).expect("a legal header")
}

fn payload(offset: u64, len: u64, epoch_size: u64) -> Vec<u8> {
    [offset, len, epoch_size].into_iter().flat_map(u64::to_le_bytes).collect()
}

// spec-test: QED-MODE-01
#[test]
fn two_modes_exist() {
    let cases: [(&[u8], Result<ConsistencyMode, ModeError>); 6] = [
        (&[1, 0, 0, 0], Ok(ConsistencyMode::Compat)),
        (&[2, 0, 0, 0], Ok(ConsistencyMode::Journal)),
        (&[0, 0, 0, 0], Err(ModeError::Unknown { found: 0 })),
        (&[3, 0, 0, 0], Err(ModeError::Unknown { found: 3 })),
        (&[1, 0, 0], Err(ModeError::Length { found: 3 })),
        (&[1, 0, 0, 0, 0], Err(ModeError::Length { found: 5 })),
    ];
    for (payload, expected) in cases {
        assert_eq!(ConsistencyMode::parse(payload), expected);
        if let Ok(mode) = expected {
            assert_eq!(mode.encode(), *payload);
        }
    }
    let names = [ConsistencyMode::Compat, ConsistencyMode::Journal].map(ConsistencyMode::name);
    assert_eq!(names, ["compat", "journal"]);
}

// spec-test: QED-DIRTY-01
#[test]
fn the_bitmap_is_whole_sectors_of_the_header_area_behind_the_superblocks() {
    let geometry = Geometry::new(4096, 4).expect("legal");
    // 32 KiB of header area; 2048 slots of a table need 256 bytes of marks at most.
    let header = header(geometry, 8, 1 << 20);
    let place =
        |offset, len_bytes| DirtyBitmapError::Place { offset: HostOffset::new(offset), len_bytes };
    for (offset, len) in [(16384, 512), (16384, 16384), (32256, 512)] {
        let bitmap = DirtyBitmap::parse(&payload(offset, len, 77), &header).expect("legal");
        assert_eq!((bitmap.offset().get(), bitmap.len_bytes()), (offset, len));
        assert_eq!((bitmap.epoch_size(), bitmap.end()), (77, offset + len));
        assert_eq!(bitmap.encode(), *payload(offset, len, 77));
        assert_eq!(bitmap.with_epoch_size(78).encode(), *payload(offset, len, 78));
    }
    for (offset, len) in [
        (15872, 512),
        (16383, 512),
        (16384, 511),
        (16385, 512),
        (32256, 1024),
        (u64::MAX - 511, 512),
    ] {
        assert_eq!(DirtyBitmap::parse(&payload(offset, len, 0), &header), Err(place(offset, len)));
    }
    let large = self::header(Geometry::new(65_536, 4).expect("legal"), 16, 1 << 20);
    for (len, is_legal) in [(524_288, true), (524_800, false)] {
        let parsed = DirtyBitmap::parse(&payload(16384, len, 0), &large);
        assert_eq!(parsed.is_ok(), is_legal, "{parsed:?}");
    }
    for len in [0, 23, 25] {
        let found = DirtyBitmap::parse(&vec![0; len], &header);
        assert_eq!(found, Err(DirtyBitmapError::Length { found: len as u64 }));
    }
}

// spec-test: QED-DIRTY-02
#[test]
fn there_are_marks_for_every_slot_of_the_disk() {
    let geometry = Geometry::new(4096, 16).expect("legal");
    // 8192 entries of 4 KiB: an L2 table maps 32 MiB.
    for (slots, fits) in [(1, true), (4096, true), (4097, false)] {
        let header = header(geometry, 8, slots * (32 << 20));
        let found = DirtyBitmap::parse(&payload(16384, 512, 0), &header);
        let expected = DirtyBitmapError::TooShort { len_bytes: 512, slots };
        assert_eq!(found.err(), (!fits).then_some(expected));
    }
    let bitmap = DirtyBitmap::of_new_image(geometry, 0);
    assert_eq!(bitmap.len_bytes(), 1024);
    for (slot, mark) in [(0, (0, 1)), (7, (0, 128)), (8, (1, 1)), (8191, (1023, 128))] {
        assert_eq!(bitmap.mark_of(L1Index::new(slot)), Some(mark));
    }
    assert_eq!(bitmap.mark_of(L1Index::new(8192)), None);
    assert_eq!(bitmap.mark_of(L1Index::new(u64::MAX)), None);
}

#[test]
fn a_new_image_of_every_shape_has_room_for_all_its_marks() {
    for bits in 12..=26 {
        for table in [1, 2, 4, 8, 16] {
            let geometry = Geometry::new(1 << bits, table).expect("legal");
            let bitmap = DirtyBitmap::of_new_image(geometry, 1);
            let clusters = u32::try_from(bitmap.header_size_clusters(geometry)).expect("small");
            let largest = geometry.max_image_size_bytes().min((1 << 63) - 512);
            let header = header(geometry, clusters, largest / 512 * 512);
            assert_eq!(DirtyBitmap::parse(&bitmap.encode(), &header), Ok(bitmap));
            assert!(bitmap.end() > u64::from(clusters - 1) << bits, "no cluster more than needed");
        }
    }
}
