//! The section PHYSICAL_SIZE: every bound of the end of an image on a block device.

use qed_spec::{
    AutoclearFeatures, CompatFeatures, Features, Geometry, Header, HeaderFields, HostOffset,
    PhysicalSize, PhysicalSizeError,
};

const CLUSTER: u64 = 4096;

/// Of 4 KiB clusters with a header area of `area` and an L1 table of 2 from cluster `l1` on.
fn header(area: u32, l1: u64) -> Header {
    let fields = HeaderFields {
        geometry: Geometry::new(4096, 2).expect("legal"),
        header_size_clusters: area,
        features: Features::empty(),
        compat_features: CompatFeatures::empty(),
        autoclear_features: AutoclearFeatures::PHYSICAL_SIZE,
        l1_table_offset: HostOffset::new(l1 * CLUSTER),
        image_size: 1 << 20,
    };
    Header::new(fields, (l1 + 2) * CLUSTER).expect("a legal header")
}

fn payload(physical_size: u64, device_size: u64) -> Vec<u8> {
    [physical_size, device_size].into_iter().flat_map(u64::to_le_bytes).collect()
}

// spec-test: QED-DEV-07
#[test]
fn the_end_is_whole_clusters_behind_the_roots_and_on_the_device() {
    let header = header(5, 7);
    let l1_end = 9 * CLUSTER;
    let largest = u64::MAX / CLUSTER * CLUSTER;
    for (physical_size, device_size) in [
        (l1_end, l1_end),
        (l1_end, u64::MAX),
        (l1_end + CLUSTER, l1_end + CLUSTER + 511),
        (largest, u64::MAX),
    ] {
        let bytes = payload(physical_size, device_size);
        let parsed = PhysicalSize::parse(&bytes, &header).expect("legal");
        assert_eq!((parsed.physical_size(), parsed.device_size()), (physical_size, device_size));
        assert_eq!(parsed.encode(), *bytes);
        assert_eq!(PhysicalSize::new(physical_size, device_size, &header), Ok(parsed));
    }
    let inside = |physical_size| PhysicalSizeError::InsideRoots { physical_size, l1_end };
    let past =
        |physical_size, device_size| PhysicalSizeError::PastDevice { physical_size, device_size };
    for (physical_size, device_size, expected) in [
        (0, u64::MAX, inside(0)),
        (l1_end - CLUSTER, u64::MAX, inside(l1_end - CLUSTER)),
        (l1_end + 512, u64::MAX, PhysicalSizeError::Unaligned { physical_size: l1_end + 512 }),
        (l1_end - 1, u64::MAX, PhysicalSizeError::Unaligned { physical_size: l1_end - 1 }),
        (l1_end, l1_end - 1, past(l1_end, l1_end - 1)),
        (largest, largest - 1, past(largest, largest - 1)),
    ] {
        let found = PhysicalSize::parse(&payload(physical_size, device_size), &header);
        assert_eq!(found, Err(expected), "{physical_size} of {device_size}");
    }
    for len in [0, 8, 15, 17, 24] {
        let found = PhysicalSize::parse(&vec![0; len], &header);
        assert_eq!(found, Err(PhysicalSizeError::Length { found: len as u64 }));
    }
}
