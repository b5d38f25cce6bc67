//! A hundred connections at once: no data is lost, and nothing of them stays behind. For as many
//! seconds as `QED_SOAK_SECONDS` says; `cargo xtask soak` says ten minutes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

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

/// What the second half of the time may take more than the first: the same work leaves the same.
const GROWTH_KIB: u64 = 64 << 10;

/// What a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    memory_kib: u64,
    /// The most memory that it ever had.
    peak_kib: u64,
}

impl Holdings {
    fn of(process: u32) -> Self {
        let count = |what| fs::read_dir(format!("/proc/{process}/{what}")).expect("alive").count();
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("alive");
        let kib = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            memory_kib: kib("VmRSS:"),
            peak_kib: kib("VmHWM:"),
        }
    }
}

#[test]
fn a_hundred_connections_leave_nothing_behind() {
    let lab = Lab::new();
    let seconds = std::env::var("QED_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("seconds"));
    lab.shell("qemu-img create -q -f qed a.qed 1G");
    let served = Served::start(&lab, "--socket s --metrics ./m -f qed a.qed", 1);
    clients(&lab, &format!("nbdinfo --size '{}'", served.uri()));
    let before = settled(served.id(), None);

    let is_over = AtomicBool::new(false);
    let halves = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&lab, &served, seconds, &is_over));
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
    let after = settled(served.id(), Some(before));
    assert!(after.peak_kib < OWN_KIB + CONNECTIONS as u64 * CONNECTION_KIB, "{after:?}");
    assert!(halves[1] < halves[0] + GROWTH_KIB, "most memory of each half: {halves:?} KiB");
    assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
    println!("{seconds} s: before {before:?}, after {after:?}, most in each half {halves:?} KiB");
    println!("{}", counted(&lab));
    served.stop();
    lab.qed(["check", "-f", "qed", "a.qed"]).succeeded();
    lab.shell("qemu-img check -q -f qed a.qed");
}

/// The most memory that the server has in either half of the time.
fn watch(lab: &Lab, served: &Served, seconds: u64, is_over: &AtomicBool) -> [u64; 2] {
    let (start, mut halves) = (Instant::now(), [0; 2]);
    while !is_over.load(Ordering::Relaxed) {
        let half = usize::from(start.elapsed().as_secs() * 2 >= seconds);
        halves[half] = halves[half].max(Holdings::of(served.id()).memory_kib);
        // A client that comes and goes, over and over.
        clients(lab, &format!("nbdinfo --size '{}'", served.uri()));
    }
    halves
}

/// What the server counted, and that it turned nobody away and refused nothing.
fn counted(lab: &Lab) -> String {
    let mut counters = UnixStream::connect(lab.path("m")).expect("connected");
    counters.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("asked");
    let mut page = String::new();
    counters.read_to_string(&mut page).expect("told");
    for none in ["qed_nbd_turned_away_total 0", "qed_nbd_refused_total 0"] {
        assert!(page.contains(none), "{page}");
    }
    let counts = page.lines().filter(|line| line.starts_with("qed_nbd_"));
    counts.collect::<Vec<_>>().join("\n")
}

/// What it holds when its clients are gone, which it sees a little later than they do.
fn settled(process: u32, expected: Option<Holdings>) -> Holdings {
    let start = Instant::now();
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
