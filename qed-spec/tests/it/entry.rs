//! Table entries: which of all interesting values mean what, in every shape.

use qed_spec::{EntryError, HostCluster, L1Entry, L2Entry};

use crate::image::{edges64, shapes};

fn cluster(value: u64, cluster_size: u32) -> Option<HostCluster> {
    let size = u64::from(cluster_size);
    if value.is_multiple_of(size) { HostCluster::new(value / size) } else { None }
}

// spec-test: QED-TBL-02, QED-TBL-03
#[test]
fn an_l1_entry_is_zero_or_an_aligned_offset() {
    for (cluster_size, _, geometry) in shapes() {
        for value in edges64() {
            let expected = match (value, cluster(value, cluster_size)) {
                (0, _) => Ok(L1Entry::Unallocated),
                (_, Some(table)) => Ok(L1Entry::Table(table)),
                (_, None) => Err(EntryError::Unaligned { value }),
            };
            assert_eq!(L1Entry::decode(value, geometry), expected, "{geometry:?} {value:#x}");
            if let Ok(entry) = expected {
                assert_eq!(entry.encode(geometry), value);
            }
        }
    }
}

// spec-test: QED-TBL-03, QED-TBL-04, QED-TBL-05
#[test]
fn an_l2_entry_is_zero_one_or_an_aligned_offset() {
    for (cluster_size, _, geometry) in shapes() {
        for value in edges64() {
            let expected = match (value, cluster(value, cluster_size)) {
                (0, _) => Ok(L2Entry::Unallocated),
                (1, _) => Ok(L2Entry::Zero),
                (_, Some(data)) => Ok(L2Entry::Data(data)),
                (_, None) => Err(EntryError::Unaligned { value }),
            };
            assert_eq!(L2Entry::decode(value, geometry), expected, "{geometry:?} {value:#x}");
            if let Ok(entry) = expected {
                assert_eq!(entry.encode(geometry), value);
            }
        }
    }
}
