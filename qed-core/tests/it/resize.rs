//! What a resize leaves in the file for other programs.

use qed_core::{ExtentKind, RefuseBacking, Shrink};
use qed_io::Storage;
use qed_spec::GuestOffset;

use crate::support::{new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;

// spec-test: QED-QEMU-18, QED-MAP-04
#[test]
fn a_disk_cut_off_inside_a_cluster_leaves_zeros_behind_its_end() {
    for end in [CLUSTER + 512, 2 * CLUSTER - 512] {
        let storage = new_storage(small_geometry(), 4 * CLUSTER, false);
        let image = open(storage.clone(), &RefuseBacking);
        image.write_at(&[7; 4 * 4096], GuestOffset::new(0)).unwrap();
        image.resize(end, Shrink::Allow).unwrap();
        let ExtentKind::Data(host) = image.map(GuestOffset::new(CLUSTER), 1).unwrap().kind else {
            panic!("the last cluster is still allocated");
        };
        let mut cluster = [0xee; 4096];
        storage.read_at(&mut cluster, host.get()).unwrap();
        let (kept, wiped) = cluster.split_at((end - CLUSTER) as usize);
        assert!(kept.iter().all(|byte| *byte == 7));
        assert!(wiped.iter().all(|byte| *byte == 0));
    }
}
