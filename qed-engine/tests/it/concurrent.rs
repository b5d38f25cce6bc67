//! Other threads in the same clusters, and one that changes the size of the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use qed_core::{GivenBacking, Shrink};
use qed_engine::Engine;
use qed_spec::GuestOffset;

use crate::support::{CLUSTER, DISK, finish, make, read, write};

/// Each cluster gets one half from the engine and one from a thread.
#[test]
fn an_engine_and_a_thread_write_into_the_same_new_clusters() {
    for direct in [false, true] {
        let made = make(direct, false, &GivenBacking(None));
        let half = CLUSTER as usize / 2;
        thread::scope(|scope| {
            scope.spawn(|| {
                for cluster in 0..DISK / CLUSTER {
                    made.image
                        .write_at(&vec![2; half], GuestOffset::new(cluster * CLUSTER))
                        .unwrap();
                }
            });
            let mut engine = Engine::for_image(made.image.clone(), 16).unwrap();
            for cluster in 0..DISK / CLUSTER {
                write(&mut engine, cluster, cluster * CLUSTER + half as u64, &vec![1; half]);
            }
            finish(&mut engine);
        });
        let mut disk = vec![0; DISK as usize];
        made.image.read_at(&mut disk, GuestOffset::new(0)).unwrap();
        for cluster in disk.chunks(CLUSTER as usize) {
            assert!(cluster[..half].iter().all(|byte| *byte == 2));
            assert!(cluster[half..].iter().all(|byte| *byte == 1));
        }
    }
}

#[test]
fn the_size_changes_beside_an_engine_that_is_never_idle() {
    for direct in [false, true] {
        let made = make(direct, false, &GivenBacking(None));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20 {
                    made.image.resize(DISK / 2, Shrink::Allow).unwrap();
                    made.image.resize(DISK, Shrink::Refuse).unwrap();
                }
                stop.store(true, Ordering::Relaxed);
            });
            let mut engine = Engine::for_image(made.image.clone(), 8).unwrap();
            for tag in 0..8 {
                write(&mut engine, tag, tag * CLUSTER, &[7; 4096]);
            }
            let mut next = 8;
            while let Some(served) = engine.wait().unwrap() {
                served.result.unwrap();
                if !stop.load(Ordering::Relaxed) {
                    write(&mut engine, next, next * CLUSTER % (DISK / 2), &[7; 4096]);
                    next += 1;
                }
            }
            for cluster in 0..8 {
                read(&mut engine, cluster, cluster * CLUSTER, 4096);
            }
            assert!(finish(&mut engine).iter().all(|(_, bytes)| *bytes == [7; 4096]));
        });
        made.image.close().unwrap();
    }
}
