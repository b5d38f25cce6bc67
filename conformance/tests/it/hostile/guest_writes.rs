//! A guest writes all of its disk through tables that lie: no byte of it reaches metadata.

use std::sync::Arc;

use qed_core::{Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, ZeroMode};
use qed_io::MemoryStorage;
use qed_spec::GuestOffset;

use super::image::{CLUSTER, DISK, L1, TABLE};
use super::tables;
use crate::support::Folder;

#[test]
fn no_guest_write_reaches_metadata() {
    let mut opened = 0;
    for case in tables::CASES {
        for path in (case.build)(&Folder::new()) {
            let storage = Arc::new(MemoryStorage::new(std::fs::read(path).unwrap()));
            opened += u32::from(survives(case.name, &storage));
            // What the first guest left behind is where a second one begins.
            survives(case.name, &storage);
        }
    }
    assert!(opened >= 10, "only {opened} of the images opened for writing");
}

/// Writes to every cluster of the guest; whether the image opened.
fn survives(name: &str, storage: &Arc<MemoryStorage>) -> bool {
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
    let Ok(image) = Image::open(Arc::<MemoryStorage>::clone(storage), &context) else {
        return false;
    };
    let before = metadata(&storage.to_vec());
    for at in (0..image.image_size()).step_by(4096) {
        // A corrupt entry refuses the write; all others go through.
        drop(image.write_at(&[0xaa; 512], GuestOffset::new(at)));
        drop(image.write_zeroes(GuestOffset::new(at), 4096, ZeroMode::IfNeeded));
        drop(image.write_at(&[0xaa; 4096], GuestOffset::new(at)));
    }
    let written = storage.to_vec();
    for (at, table) in &before {
        assert!(written[*at..at + table.len()] == *table, "{name}: {at:#x} before any flush");
    }
    image.close().unwrap();
    // Closing writes tables: they have new entries, and no guest byte among them.
    for (at, table) in metadata(&storage.to_vec()) {
        let is_guests = |entry: &[u8]| *entry == [0xaa; 8];
        assert!(!table.chunks(8).any(is_guests), "{name}: {at:#x} after the close");
    }
    true
}

/// The header area and every table that the L1 table names, with where they lie.
fn metadata(image: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let number = |at: u64| {
        let at = usize::try_from(at).unwrap();
        u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
    };
    let l1 = number(40);
    let tables = (0..DISK / (4 << 20)).map(|slot| number(l1 + 8 * slot)).filter(|at| *at != 0);
    let places = [(0, l1.max(L1)), (l1, TABLE)].into_iter().chain(tables.map(|at| (at, TABLE)));
    let bytes = |(at, len): (u64, u64)| {
        let at = usize::try_from(at).unwrap();
        (at, image[at..at + usize::try_from(len.max(CLUSTER)).unwrap()].to_vec())
    };
    places.map(bytes).collect()
}
