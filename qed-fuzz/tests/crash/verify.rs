//! What must hold after a crash, whatever survived it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use qed_check::{CheckOptions, check, recover};
use qed_core::{Image, RecoveryPolicy};
use qed_fuzz::{Beneath, CrashDisk, DiskContent, SECTOR};
use qed_io::Storage;
use qed_spec::GuestOffset;

use crate::guest::{Guest, Tag, content};
use crate::workload::{CLUSTER, open, try_open};

/// Tag of the first probe write.
const PROBE: Tag = 1 << 30;

/// Opens a state as a program does after a crash, reads all of it, then writes into each cluster
/// and finds only that changed: a cluster that two owners have would show.
pub(crate) fn verify(state: DiskContent, guest: &Guest, gate: &Beneath, case: impl Fn() -> String) {
    let disk = Arc::new(CrashDisk::new(state));
    let hook = |storage: &dyn Storage| Ok(recover(storage)?);
    let image = try_open(disk.clone(), gate, RecoveryPolicy::Run(&hook))
        .unwrap_or_else(|error| panic!("{}: {error:?}", case()));
    assert_sound(&disk, &case);
    assert!(guest.names.contains(&image.backing_name()), "{}", case());
    let size = image.image_size() / SECTOR;
    assert!(guest.sizes.contains(&size), "{}: {size} sectors", case());
    let mut now = read_all(&image);
    for (sector, found) in (0..).zip(now.chunks(SECTOR as usize)) {
        let word = u64::from_le_bytes(found[..8].try_into().unwrap());
        assert!(guest.allows(sector, found), "{}: sector {sector} holds {word:#x}", case());
    }
    for first in (0..size).step_by(CLUSTER as usize) {
        let sector = (first + first / CLUSTER % CLUSTER).min(size - 1);
        let probe = content(PROBE, sector);
        image.write_at(&probe, GuestOffset::new(sector * SECTOR)).unwrap();
        now[(sector * SECTOR) as usize..][..SECTOR as usize].copy_from_slice(&probe);
    }
    assert!(read_all(&image) == now, "{}: a probe changed more than itself", case());
    image.close().unwrap();
    assert_sound(&disk, &case);
    assert!(read_all(&open(disk, gate)) == now, "{}: reopened", case());
}

fn assert_sound(disk: &CrashDisk, case: impl Fn() -> String) {
    let mut options = CheckOptions::default();
    options.threads = NonZeroUsize::new(1);
    let report = check(disk, &options).unwrap();
    assert!(report.corruptions() == 0 && !report.dirty, "{}: {:?}", case(), report.findings);
}

fn read_all(image: &Image) -> Vec<u8> {
    let mut all = vec![0xee; usize::try_from(image.image_size()).unwrap()];
    image.read_at(&mut all, GuestOffset::new(0)).unwrap();
    all
}
