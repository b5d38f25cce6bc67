//! Times what the pending log costs: allocating writes of an image that keeps one, beside those of one that
//! does not.
//!
//! `cargo bench -p qed --bench pending [-- CASE]` prints one line a round, as the bench `space` does. The
//! image is in compat mode, with clusters of 4 KiB, so that each write of 4 KiB has a record of its own; the
//! file lies in the folder that `QED_BENCH_DIR` names, else in the build output. `QED_ROUNDS` says how many
//! rounds, 11 if it does not.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qed::{Image, Keeps};

const CLUSTER: u64 = 4096;
/// Fewer than the log has slots: a flush is another figure.
const WRITES: u64 = 30_000;

/// What is timed: its name and the threads that write.
const CASES: [(&str, usize); 3] =
    [("write_logged_4k", 1), ("write_logged_4k_t2", 2), ("write_logged_4k_t16", 16)];

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let dir = std::env::var_os("QED_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let rounds = std::env::var("QED_ROUNDS").map_or(11, |text| text.parse().unwrap());
    let path = dir.join("pending-bench.qed");
    for (name, threads) in CASES {
        if !words.is_empty() && !words.iter().any(|word| word == name) {
            continue;
        }
        for _ in 0..rounds {
            let keeps = [Keeps::Nothing, Keeps::Owner, Keeps::Nothing];
            let [before, it, again] = keeps.map(|keeps| write(&path, keeps, threads).as_nanos());
            println!("case={name} ours_ns={it} reference_ns={before} again_ns={again}");
        }
    }
    std::fs::remove_file(path).ok();
}

/// Writes of a new image, of which each allocates a cluster.
fn write(path: &Path, keeps: Keeps, threads: usize) -> Duration {
    std::fs::remove_file(path).ok();
    let options = Image::options().cluster_size(4096);
    let options = if keeps == Keeps::Owner { options.outlive_process() } else { options };
    let image = options.create(path, 2 * WRITES * CLUSTER).unwrap();
    let bytes = [7; 4096];
    let next = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= WRITES {
                        break;
                    }
                    image.write_at(&bytes, 2 * number * CLUSTER).unwrap();
                }
            });
        }
    });
    let time = start.elapsed();
    image.close().unwrap();
    time
}
