//! Requests that find no space: the engine looks for what is free, and tries them once more.

use std::env;
use std::process::Command;
use std::sync::Arc;

use qed_core::GivenBacking;
use qed_engine::Engine;
use qed_spec::{ErrorKind, GuestOffset};

use crate::support::{CLUSTER, DISK, make, read, write};

/// Set where files can only be as long as half the disk.
const LIMITED: &str = "QED_LIMITED";

/// Runs this test again where files cannot get longer than 2 MiB; true where that is.
fn is_limited(test: &str) -> bool {
    if env::var_os(LIMITED).is_some() {
        return true;
    }
    // Counted in 512 bytes; without the trap the signal ends the program instead of an error.
    let limit = DISK / 2 / 512;
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" --exact {test}");
    let mut again = Command::new("dash");
    again.args(["-c", &script]).arg(env::current_exe().unwrap()).env(LIMITED, "1");
    let ran = again.output().expect("dash is there");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    false
}

#[test]
fn what_was_discarded_serves_those_that_found_no_space() {
    if !is_limited("starved::what_was_discarded_serves_those_that_found_no_space") {
        return;
    }
    let made = make(false, false, &GivenBacking(None));
    let mut engine = Engine::for_image(Arc::clone(&made.image), 8).unwrap();
    let clusters = DISK / CLUSTER;
    let fill = |engine: &mut Engine, clusters: std::ops::Range<u64>, byte: u8| {
        for tag in clusters {
            write(engine, tag, tag * CLUSTER, &[byte; CLUSTER as usize]);
        }
        let mut failed = Vec::new();
        while let Some(served) = engine.wait().unwrap() {
            if let Err(error) = served.result {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                failed.push(served.tag);
            }
        }
        failed
    };
    let failed = fill(&mut engine, 0..clusters, 1);
    let full = clusters - failed.len() as u64;
    assert!(full > clusters / 4 && failed.len() as u64 >= clusters / 2, "{full} of {clusters}");

    // What is free now is known to nobody before it is looked for, and some are served from it.
    made.image.discard(GuestOffset::new(0), 32 * CLUSTER).unwrap();
    let last = clusters - 40..clusters;
    // In flight beside them: what needs no space.
    write(&mut engine, 1000, 40 * CLUSTER, &[3; 512]);
    read(&mut engine, 1001, 41 * CLUSTER, 512);
    let failed = fill(&mut engine, last.clone(), 2);
    assert_eq!(failed.len(), 8, "as many as were discarded are served: {failed:?}");
    let mut disk = vec![0; DISK as usize];
    made.image.read_at(&mut disk, GuestOffset::new(0)).unwrap();
    for (cluster, bytes) in disk.chunks(CLUSTER as usize).enumerate() {
        let cluster = cluster as u64;
        let expected = match cluster {
            0..32 => 0,
            _ if last.contains(&cluster) && !failed.contains(&cluster) => 2,
            _ => bytes[CLUSTER as usize - 1],
        };
        assert!(bytes[512..].iter().all(|byte| *byte == expected), "cluster {cluster}");
    }
    assert!(disk[40 * CLUSTER as usize..][..512] == [3; 512]);
    drop(engine);
    made.image.close().unwrap();
}
