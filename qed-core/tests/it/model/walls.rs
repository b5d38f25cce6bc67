//! The walls between the owners hold: other data and other space make no difference to the guest.

use qed_core::{ExtentKind, GivenBacking, VirtualDisk};
use qed_io::Storage;
use qed_spec::{Geometry, GuestOffset, HostOffset};

use super::DISK;
use crate::support::{JOURNAL, new_storage_of, open};

#[test]
fn a_cipher_behind_the_data_path_changes_nothing_for_the_guest() {
    qed_core::testing::with_toy_cipher(|| {
        let gate = GivenBacking(None);
        let storage = new_storage_of(JOURNAL, Geometry::new(4096, 1).unwrap(), DISK, false);
        let image = open(storage.clone(), &gate);
        image.write_at(&[0x77; 16 << 10], GuestOffset::new(0)).unwrap();
        assert!(image.direct().is_none() && image.data_storage(0, 0).is_none());
        image.close().unwrap();
        let is_plain = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0x77);
        assert!(!storage.to_vec().windows(16).any(is_plain), "the guest's bytes are in the file");
        super::compare_with_the_model();
    });
}

#[test]
fn clusters_that_lie_low_and_were_used_change_nothing_for_the_guest() {
    qed_core::testing::with_used_clusters(40, || {
        let storage = new_storage_of(JOURNAL, Geometry::new(4096, 1).unwrap(), DISK, false);
        let before = storage.len().unwrap();
        let image = open(storage, &GivenBacking(None));
        image.write_at(&[0x77; 512], GuestOffset::new(0)).unwrap();
        let extent = image.map(GuestOffset::new(0), 512).unwrap();
        assert_eq!(extent.kind, ExtentKind::Data(HostOffset::new(before)), "the lowest is taken");
        super::compare_with_the_model();
    });
}
