//! A hundred connections at once: no data is lost, and nothing of them stays behind. For as many
//! seconds as `QED_SOAK_SECONDS` says; `cargo xtask soak` says ten minutes.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Served, clients};
use crate::lab::Lab;

const CONNECTIONS: usize = 100;
/// In the ordinary run of the tests.
const SECONDS: u64 = 2;
/// What the server may take beside its connections: the program, and the cache of tables.
const OWN_KIB: u64 = 96 << 10;
/// What a connection may take with the requests that are sent here: its buffers, and its threads'
/// stacks as far as they are used.
const CONNECTION_KIB: u64 = 1 << 10;

/// What a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    memory_kib: u64,
}

impl Holdings {
    fn of(process: u32) -> Self {
        let count = |what| fs::read_dir(format!("/proc/{process}/{what}")).expect("alive").count();
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        let memory = line.trim().trim_end_matches(" kB").parse().expect("a number");
        Self { descriptors: count("fd"), threads: count("task"), memory_kib: memory }
    }
}

#[test]
fn a_hundred_connections_leave_nothing_behind() {
    let lab = Lab::new();
    let seconds = std::env::var("QED_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("seconds"));
    lab.shell("qemu-img create -q -f qed a.qed 1G");
    let served = Served::start(&lab, "--socket s -f qed a.qed", 1);
    clients(&lab, &format!("nbdinfo --size '{}'", served.uri()));
    let before = settled(served.id(), None);

    let is_over = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = before.memory_kib;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(Holdings::of(served.id()).memory_kib);
                thread::yield_now();
                // A client that comes and goes, over and over.
                clients(&lab, &format!("nbdinfo --size '{}'", served.uri()));
            }
            most
        });
        // Each job writes its own 1 MiB in random order, reads it back, and begins again.
        let said = clients(
            &lab,
            &format!(
                "fio --name=soak --ioengine=nbd --uri='{}' --rw=randwrite --bsrange=512-32k \
                 --iodepth=8 --size=1M --offset_increment=8M --numjobs={CONNECTIONS} --time_based \
                 --runtime={seconds} --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=256 \
                 --thread --group_reporting",
                served.uri()
            ),
        );
        is_over.store(true, Ordering::Relaxed);
        assert!(said.contains("err= 0"), "{said}");
        watch.join().expect("watched")
    });
    assert!(most < OWN_KIB + CONNECTIONS as u64 * CONNECTION_KIB, "{most} KiB");
    let after = settled(served.id(), Some(before));
    assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
    println!("{seconds} s: at most {most} KiB, before {before:?}, after {after:?}");
    served.stop();
    lab.qed(["check", "-f", "qed", "a.qed"]).succeeded();
    lab.shell("qemu-img check -q -f qed a.qed");
}

/// What it holds when its clients are gone, which it sees a little later than they do.
fn settled(process: u32, expected: Option<Holdings>) -> Holdings {
    let start = std::time::Instant::now();
    loop {
        let now = Holdings::of(process);
        let as_expected = expected
            .is_some_and(|then| (now.descriptors, now.threads) == (then.descriptors, then.threads));
        // The main thread, the one for signals and the one for the disks.
        if as_expected || (expected.is_none() && now.threads == 3) {
            return now;
        }
        if start.elapsed().as_secs() > 30 {
            return now;
        }
        thread::yield_now();
    }
}
