//! A program that writes an image and stops at any moment: killed, or with the power of its disk cut.
//! What was flushed has to be there. A killed program proves nothing about flushes, since the system
//! keeps what it wrote; the disk that loses its power does.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod disk;
mod mounts;
mod victim;

use std::fs;

use qed_fuzz::{Mode, Random};

use crate::disk::{FILE, PowerDisk};
use crate::mounts::Mounted;
use crate::victim::{Victim, check, create_image, empty_disk};

const LEN: usize = 64 << 20;
const CUT_ROUNDS: u64 = 4;

#[test]
fn a_disk_that_loses_power_keeps_what_was_flushed() {
    for mode in Mode::ALL {
        for round in 0..CUT_ROUNDS {
            let mut random = Random::new(mode as u64 * CUT_ROUNDS + round);
            let folder = tempfile::tempdir().unwrap();
            let [below, above] = ["below", "above"].map(|name| folder.path().join(name));
            [&below, &above].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
            let image = above.join("image");

            let power = PowerDisk::new(LEN);
            let Some(session) = power.mount(&below) else { return };
            let mounted = Mounted::make(&below.join(FILE), &above);
            create_image(&image, mode);
            let mut disk = empty_disk();
            let mut victim = Victim::start(&image, &disk);
            victim.flushes(1 + random.below(60));
            let flushes = power.cut(&mut random);
            let told = victim.kill();
            drop(mounted);
            drop(session);

            let kept = folder.path().join("kept");
            fs::write(&kept, power.durable()).unwrap();
            let _mounted = Mounted::of(&kept, &above);
            check(&image, &mut disk, told);
            assert!(flushes > 1, "{mode}: no flush came through to the disk");
        }
    }
}

const KILLED_ROUNDS: u64 = 12;

#[test]
fn a_killed_writer_leaves_what_it_flushed() {
    for mode in Mode::ALL {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        create_image(&image, mode);
        let mut disk = empty_disk();
        let mut random = Random::new(mode as u64);
        for _ in 0..KILLED_ROUNDS {
            let mut victim = Victim::start(&image, &disk);
            victim.flushes(1 + random.below(40));
            let told = victim.kill();
            check(&image, &mut disk, told);
        }
        assert!(disk.next() > 200, "{mode}: {} writes", disk.next());
    }
}
