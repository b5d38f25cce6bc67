//! The 75 shapes: sizes, limits and the split of guest offsets, against 128-bit arithmetic.

use qed_spec::{Geometry, GuestOffset, HostCluster, HostOffset, L1Index, L2Index};

use crate::image::{CLUSTER_SIZES, TABLE_SIZES, edges32, edges64, shapes};

// spec-test: QED-HDR-03, QED-HDR-04, QED-MAP-03
#[test]
fn the_legal_shapes_are_the_75_of_the_specification() {
    let mut legal = 0;
    for cluster_size in edges32().into_iter().chain([12288, 65535]) {
        for table_size in edges32() {
            let expected =
                CLUSTER_SIZES.contains(&cluster_size) && TABLE_SIZES.contains(&table_size);
            let found = Geometry::new(cluster_size, table_size).is_some();
            assert_eq!(found, expected, "{cluster_size} bytes, {table_size} clusters");
            legal += usize::from(found);
        }
    }
    assert_eq!(legal, 75);
}

// spec-test: QED-TBL-01, QED-HDR-03, QED-HDR-04
#[test]
fn sizes_follow_from_cluster_and_table_size() {
    for (cluster_size, table_size, geometry) in shapes() {
        let (cluster, table) = (u64::from(cluster_size), u64::from(table_size));
        assert_eq!(geometry.cluster_size_bytes(), cluster);
        assert_eq!(geometry.table_size_clusters(), table);
        assert_eq!(geometry.table_size_bytes(), table * cluster);
        assert_eq!(geometry.table_entries(), table * cluster / 8);
        assert_eq!(geometry.l2_coverage_bytes(), table * cluster / 8 * cluster);
        assert_eq!(1 << geometry.cluster_bits(), cluster);
    }
}

// spec-test: QED-MAP-02
#[test]
fn the_largest_disk_saturates_and_never_wraps() {
    let mut saturated = 0;
    for (_, _, geometry) in shapes() {
        let entries = u128::from(geometry.table_entries());
        let mapped = entries * entries * u128::from(geometry.cluster_size_bytes());
        let expected = mapped.min(u128::from(u64::MAX - 511));
        assert_eq!(u128::from(geometry.max_image_size_bytes()), expected, "{geometry:?}");
        assert_eq!(geometry.max_image_size_bytes() % 512, 0);
        saturated += usize::from(mapped > u128::from(u64::MAX));
    }
    // 1 shape of 2 MiB clusters, 3 of 4 MiB, 4 of 8 MiB, and all 5 of 16, 32 and 64 MiB.
    assert_eq!(saturated, 1 + 3 + 4 + 3 * 5);
}

// spec-test: QED-MAP-01
#[test]
fn lookup_splits_as_division_does_and_guest_offset_is_its_inverse() {
    for (_, _, geometry) in shapes() {
        let max = geometry.max_image_size_bytes();
        let cluster = geometry.cluster_size_bytes();
        let coverage = geometry.l2_coverage_bytes();
        let bounds = [0, 1, cluster - 1, cluster, coverage - 1, coverage, max - 1, max, u64::MAX];
        for at in edges64().into_iter().chain(bounds) {
            let entries = geometry.table_entries();
            let slots = geometry.lookup(GuestOffset::new(at));
            assert_eq!(slots.is_some(), at / cluster / entries < entries, "{geometry:?} {at:#x}");
            let Some(slots) = slots else { continue };
            assert_eq!(slots.l1.get(), at / cluster / entries);
            assert_eq!(slots.l2.get(), at / cluster % entries);
            assert_eq!(slots.within_cluster, at % cluster);
            let back = geometry.guest_offset(slots.l1, slots.l2).expect("it came from there");
            assert_eq!(back.checked_add(slots.within_cluster), Some(GuestOffset::new(at)));
        }
    }
}

// spec-test: QED-MAP-01
#[test]
fn guest_offset_knows_the_slots_that_no_offset_reaches() {
    for (_, _, geometry) in shapes() {
        let entries = geometry.table_entries();
        for l1 in [0, 1, entries - 1, entries, u64::MAX] {
            for l2 in [0, entries - 1, entries, u64::MAX] {
                let exact = (u128::from(l1) * u128::from(entries) + u128::from(l2))
                    * u128::from(geometry.cluster_size_bytes());
                let expected = u64::try_from(exact).ok().filter(|_| l2 < entries);
                let found = geometry.guest_offset(L1Index::new(l1), L2Index::new(l2));
                assert_eq!(found.map(GuestOffset::get), expected, "{geometry:?} {l1} {l2}");
            }
        }
    }
}

// spec-test: QED-TBL-03
#[test]
fn a_host_cluster_is_an_aligned_offset_that_is_not_zero() {
    for (_, _, geometry) in shapes() {
        let cluster = geometry.cluster_size_bytes();
        for at in edges64() {
            let found = geometry.host_cluster(HostOffset::new(at));
            assert_eq!(found.is_some(), at != 0 && at % cluster == 0, "{geometry:?} {at:#x}");
            if let Some(found) = found {
                assert_eq!(found.get(), at / cluster);
                assert_eq!(geometry.host_offset(found), HostOffset::new(at));
            }
        }
    }
}

#[test]
fn conversions_end_at_64_bits() {
    for (_, _, geometry) in shapes() {
        let cluster = geometry.cluster_size_bytes();
        let last = u64::MAX / cluster;
        let past = HostCluster::new(last + 1).expect("not zero");
        assert_eq!(geometry.host_offset(past), HostOffset::new(last * cluster), "saturates");
        let guest = geometry.guest_cluster(GuestOffset::new(u64::MAX));
        assert_eq!(guest.get(), last);
        assert_eq!(geometry.guest_cluster_offset(guest), Some(GuestOffset::new(last * cluster)));
        let past = qed_spec::GuestCluster::new(last + 1);
        assert_eq!(geometry.guest_cluster_offset(past), None);
        assert_eq!(geometry.clusters_for(u64::MAX).get(), last + 1);
        assert_eq!(geometry.clusters_for(0).get(), 0);
        assert_eq!(geometry.clusters_for(1).get(), 1);
        assert_eq!(geometry.l1_entries_for(0), 0);
        assert_eq!(geometry.l1_entries_for(geometry.l2_coverage_bytes()), 1);
        assert_eq!(geometry.l1_entries_for(geometry.l2_coverage_bytes() + 1), 2);
    }
}
