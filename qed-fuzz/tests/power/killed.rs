//! SIGKILL.

use qed_fuzz::{Mode, Random};

use crate::victim::{Victim, check, create_image, empty_disk};

const ROUNDS: u64 = 12;

#[test]
fn a_killed_writer_leaves_what_it_flushed() {
    for mode in Mode::ALL {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        create_image(&image, mode);
        let mut disk = empty_disk();
        let mut random = Random::new(mode as u64);
        for _ in 0..ROUNDS {
            let mut victim = Victim::start(&image, &disk);
            victim.flushes(1 + random.below(40));
            let told = victim.kill();
            check(&image, &mut disk, told);
        }
        assert!(disk.next() > 200, "{mode}: {} writes", disk.next());
    }
}
