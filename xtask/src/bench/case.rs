//! The list of cases, as data: what is run, on what, and what it has to reach. Runs nothing.
//!
//! A case is named operation_state_size.

use super::input::{Input, Layout};
use Reference::{Imago, QemuImg};

/// One comparison.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) goal: Goal,
    pub(super) kind: Kind,
}

/// What a case claims.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    /// At most this part of the reference's time.
    TimeAtMost(f64),
    /// At most this part of the reference's time, and five milliseconds.
    TimeAtMostPlus5Ms(f64),
    /// At least this part of the reference's speed.
    SpeedAtLeast(f64),
    /// None: the time is reported.
    None,
}

/// How a case is run.
pub(super) enum Kind {
    Command(Command),
    InProcess(InProcess),
    DirtyOpen(DirtyOpen),
    Served(Served),
    Requests(Requests),
    InPlace(Input),
}

/// One call that both programs take, each started anew for every run.
pub(super) struct Command {
    /// The words after the program's name; `IN` and `OUT` stand for the paths.
    pub(super) words: &'static [&'static str],
    pub(super) input: Input,
    /// Exit codes that count as done, of either program.
    pub(super) codes: &'static [i32],
    /// Whether the page cache is dropped before each run.
    pub(super) is_cold: bool,
    /// Whether the program's peak memory must not be above the reference's.
    pub(super) limits_memory: bool,
}

/// Lines of a bench program of one of the crates, which times both sides itself.
pub(super) struct InProcess {
    pub(super) package: &'static str,
    pub(super) bench: &'static str,
}

/// An image whose writer was killed is opened, beside the same image after a close: whole programs.
pub(super) struct DirtyOpen {
    pub(super) input: Input,
    /// Allocating writes before the kill, each in the next of as many L2 tables.
    pub(super) writes: u64,
    pub(super) tables: u64,
    pub(super) flush_every: u64,
    /// The reference is the open and a check: all tables are in doubt.
    pub(super) beside_check: bool,
}

/// Requests of `bench`, of each program to an image of its own.
pub(super) struct Requests {
    pub(super) reference: Reference,
    pub(super) disk: Disk,
    /// Of the command line of both.
    pub(super) words: &'static [&'static str],
}

/// The sender of the same requests.
#[derive(Clone, Copy)]
pub(super) enum Reference {
    /// `qemu-img bench`, to an image of this format.
    QemuImg(&'static str),
    /// The Rust library imago, to a QCOW2 image: count and depth are taken from the words.
    Imago,
}

/// Requests over NBD, to `qed serve` with a QED image and to another server with a raw file.
pub(super) struct Served {
    pub(super) peer: Peer,
    pub(super) disk: Disk,
    /// What fio is asked for.
    pub(super) words: &'static [&'static str],
}

/// The other server.
#[derive(Clone, Copy)]
pub(super) enum Peer {
    Nbdkit,
    QemuNbd,
}

/// What lies on the disk before the run.
#[derive(Clone, Copy)]
pub(super) enum Disk {
    /// 1 GiB of data, in the page cache.
    Full,
    /// 4 GiB of nothing.
    Fresh,
    /// An empty image over a raw file with 1 GiB of data.
    Overlay,
}

/// Without durability on either side, so that the disk is not what is timed.
const RAW: &[&str] = &["convert", "-t", "unsafe", "-f", "raw", "-O", "qed", "IN", "OUT"];
const QCOW2: &[&str] = &["convert", "-t", "unsafe", "-f", "qcow2", "-O", "qed", "IN", "OUT"];
const OFFLOAD: &[&str] =
    &["convert", "-C", "-t", "unsafe", "-f", "qcow2", "-O", "qed", "IN", "OUT"];
const CHECK: &[&str] = &["check", "-f", "qed", "IN"];
const INFO: &[&str] = &["info", "-f", "qed", "IN"];
const CREATE: &[&str] = &["create", "-q", "-f", "qed", "OUT", "4G"];

/// Every case but those of [`super::library`].
pub(super) static CASES: &[Case] = &[
    convert("convert_raw_4g", "raw to QED, cached", 0.9, RAW, Input::Raw),
    convert("convert_qcow2_4g", "QCOW2 to QED, cached", 0.9, QCOW2, Input::Qcow2),
    convert("convert_qcow2_zlib_4g", "zlib clusters to QED", 0.5, QCOW2, Input::Qcow2Zlib),
    convert("convert_qcow2_zstd_4g", "zstd clusters to QED", 0.7, QCOW2, Input::Qcow2Zstd),
    convert(
        "convert_qcow2_4g_offload",
        "QCOW2 to QED, -C: shared on XFS",
        1.0,
        OFFLOAD,
        Input::Qcow2,
    ),
    Case {
        name: "convert_in_place_4g",
        what: "QCOW2 to QED in place, three flushes, beside a copy without any",
        goal: Goal::TimeAtMost(0.1),
        kind: Kind::InPlace(Input::Qcow2),
    },
    Case {
        name: "convert_in_place_64g",
        what: "2^20 mapped clusters to QED in place, three flushes; qemu-img finds holes, copies none",
        goal: Goal::None,
        kind: Kind::InPlace(Input::Qcow2Mapped),
    },
    check("check_warm_1e7", "full check, cached", 0.2, Input::FullSequential, false),
    check("check_cold_1e7", "full check, caches dropped", 0.35, Input::FullSequential, true),
    check("check_warm_1e7_scattered", "full check, cached", 0.2, Input::FullScattered, false),
    check("check_cold_1e7_scattered", "full check, dropped", 0.35, Input::FullScattered, true),
    small("info_warm_1e7", "info", INFO, Input::FullSequential),
    small("create_warm_4g", "create", CREATE, Input::None),
    flush("flush_journal_8x64k", EIGHT, Goal::TimeAtMost(1.2)),
    flush("flush_journal_8x64k_backing", EIGHT, Goal::TimeAtMost(2.1)),
    flush("flush_compat_8x64k", EIGHT, Goal::None),
    flush("flush_compat_8x64k_backing", EIGHT, Goal::None),
    flush("write_journal_4k_flush16", SIXTEEN, Goal::SpeedAtLeast(0.85)),
    flush("write_compat_4k_flush16", SIXTEEN, Goal::None),
    killed("open_dirty_compat_1e5", Layout::Compat, 100_000),
    killed("open_dirty_compat_1e6", Layout::Compat, 1_000_000),
    killed("open_dirty_compat_1e7", Layout::Compat, 10_000_000),
    killed("open_dirty_compat_3e7", Layout::Compat, 30_000_000),
    killed("open_dirty_journal_1e5", Layout::Journal, 100_000),
    killed("open_dirty_journal_1e6", Layout::Journal, 1_000_000),
    killed("open_dirty_journal_1e7", Layout::Journal, 10_000_000),
    killed("open_dirty_journal_3e7", Layout::Journal, 30_000_000),
    killed_classic("open_dirty_classic_1e5", 100_000),
    killed_classic("open_dirty_classic_1e6", 1_000_000),
    killed_classic("open_dirty_classic_1e7", 10_000_000),
    killed_classic("open_dirty_classic_3e7", 30_000_000),
    Case {
        name: "open_all_marked_1e7",
        what: "after a kill, every table marked",
        goal: Goal::None,
        kind: Kind::DirtyOpen(DirtyOpen {
            input: Input::Open { layout: Layout::Compat, clusters: 10_000_000, spare_each: true },
            writes: 306,
            tables: 306,
            flush_every: 16,
            beside_check: false,
        }),
    },
    Case {
        name: "open_full_ring_1e7",
        what: "after a kill, 250 of 256 blocks of the journal in use",
        goal: Goal::None,
        kind: Kind::DirtyOpen(DirtyOpen {
            input: Input::Open { layout: Layout::Journal, clusters: 10_000_000, spare_each: false },
            writes: 250,
            tables: 8,
            flush_every: 1,
            beside_check: false,
        }),
    },
    Case {
        name: "open_full_ring_packed_1e7",
        what: "after a kill, a journal of 20000 allocations in full blocks",
        goal: Goal::None,
        kind: Kind::DirtyOpen(DirtyOpen {
            input: Input::Open { layout: Layout::Journal, clusters: 10_000_000, spare_each: false },
            writes: 20_000,
            tables: 8,
            flush_every: 20_000,
            beside_check: false,
        }),
    },
    requests("bench_allocating_4k_d1", QemuImg("qed"), Disk::Fresh, Goal::None, &ALLOCATING_1),
    requests("bench_allocating_4k_d8", QemuImg("qed"), Disk::Fresh, Goal::None, &ALLOCATING_8),
    requests("bench_allocating_4k_d32", QemuImg("qed"), Disk::Fresh, EIGHT_TIMES, &ALLOCATING_32),
    requests(
        "bench_allocating_4k_d32_direct",
        QemuImg("qed"),
        Disk::Fresh,
        EIGHT_TIMES,
        &ALLOCATING_DIRECT,
    ),
    requests(
        "bench_allocating_4k_d32_qcow2",
        QemuImg("qcow2"),
        Disk::Fresh,
        Goal::None,
        &ALLOCATING_32,
    ),
    requests("peer_allocating_4k_d1", Imago, Disk::Fresh, PEER, &ALLOCATING_1),
    requests("peer_allocating_4k_d8", Imago, Disk::Fresh, PEER, &ALLOCATING_8),
    requests("peer_allocating_4k_d32", Imago, Disk::Fresh, PEER, &ALLOCATING_32),
    requests("bench_read_4k_d32", QemuImg("qed"), Disk::Full, Goal::None, &READS),
    requests("bench_read_4k_d32_direct", QemuImg("qed"), Disk::Full, Goal::None, &READS_DIRECT),
    requests("bench_write_4k_d32", QemuImg("qed"), Disk::Full, Goal::None, &WRITES),
    requests("bench_write_4k_d32_direct", QemuImg("qed"), Disk::Full, Goal::None, &WRITES_DIRECT),
    requests("bench_read_below_4k_d32", QemuImg("qed"), Disk::Overlay, Goal::None, &READS),
    requests(
        "bench_read_below_4k_d32_direct",
        QemuImg("qed"),
        Disk::Overlay,
        Goal::None,
        &READS_DIRECT,
    ),
    served("serve_read_below_4k_q32", NBDKIT, Peer::Nbdkit, 1.0, Disk::Overlay, ONE_READS),
    served("serve_read_4k_q32", NBDKIT, Peer::Nbdkit, 1.0, Disk::Full, ONE_READS),
    served("serve_read_4k_q16x4", NBDKIT, Peer::Nbdkit, 1.0, Disk::Full, FOUR_READ),
    served("serve_write_4k_q32", NBDKIT, Peer::Nbdkit, 1.0, Disk::Full, ONE_WRITES),
    served("serve_write_4k_q16x4", NBDKIT, Peer::Nbdkit, 1.0, Disk::Full, FOUR_WRITE),
    served("serve_read_1m", NBDKIT, Peer::Nbdkit, 1.0, Disk::Full, READ_ON),
    served("serve_write_1m", NBDKIT, Peer::Nbdkit, 1.0, Disk::Full, WRITE_ON),
    served("serve_allocating_4k_q32", QEMU_NBD, Peer::QemuNbd, 0.9, Disk::Fresh, ALLOCATE),
    served("serve_read_4k_q32_qemu", QEMU_NBD, Peer::QemuNbd, 1.6, Disk::Full, ONE_READS),
    served("serve_read_4k_q16x4_qemu", QEMU_NBD, Peer::QemuNbd, 1.6, Disk::Full, FOUR_READ),
];

const PEER: Goal = Goal::SpeedAtLeast(1.2);
const EIGHT_TIMES: Goal = Goal::SpeedAtLeast(8.0);
/// One write into each cluster; depth and count.
const ALLOCATING_1: [&str; 9] = ["-w", "-s", "4k", "-S", "64k", "-c", "20000", "-d", "1"];
const ALLOCATING_8: [&str; 9] = ["-w", "-s", "4k", "-S", "64k", "-c", "20000", "-d", "8"];
const ALLOCATING_32: [&str; 9] = ["-w", "-s", "4k", "-S", "64k", "-c", "20000", "-d", "32"];
#[rustfmt::skip]
const ALLOCATING_DIRECT: [&str; 13] =
    ["-w", "-s", "4k", "-S", "64k", "-c", "2000", "-d", "32", "-t", "none", "-i", "io_uring"];
const READS: [&str; 6] = ["-S", "68k", "-c", "100000", "-d", "32"];
const READS_DIRECT: [&str; 10] =
    ["-S", "68k", "-c", "20000", "-d", "32", "-t", "none", "-i", "io_uring"];
const WRITES: [&str; 7] = ["-w", "-S", "68k", "-c", "100000", "-d", "32"];
const WRITES_DIRECT: [&str; 11] =
    ["-w", "-S", "68k", "-c", "20000", "-d", "32", "-t", "none", "-i", "io_uring"];

const NBDKIT: &str = "requests over NBD beside nbdkit's file plugin with a raw file";
const QEMU_NBD: &str = "requests over NBD beside qemu-nbd with a raw file";

const ONE_READS: &[&str] =
    &["--rw=randread", "--bs=4k", "--iodepth=32", "--size=1G", TIMED, "--runtime=1"];
const FOUR_READ: &[&str] =
    &["--rw=randread", "--bs=4k", "--iodepth=16", "--numjobs=4", "--size=1G", TIMED, "--runtime=1"];
const ONE_WRITES: &[&str] =
    &["--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=1G", TIMED, "--runtime=1"];
const FOUR_WRITE: &[&str] = &[
    "--rw=randwrite",
    "--bs=4k",
    "--iodepth=16",
    "--numjobs=4",
    "--size=1G",
    TIMED,
    "--runtime=1",
];
const READ_ON: &[&str] =
    &["--rw=read", "--bs=1M", "--iodepth=4", "--size=1G", TIMED, "--runtime=1"];
const WRITE_ON: &[&str] =
    &["--rw=write", "--bs=1M", "--iodepth=4", "--size=1G", TIMED, "--runtime=1"];
const TIMED: &str = "--time_based";
/// One write into each cluster.
const ALLOCATE: &[&str] =
    &["--rw=write:60k", "--bs=4k", "--iodepth=32", "--size=4G", "--io_size=256M"];

const EIGHT: &str = "8 scattered 64 KiB allocating writes and a flush, beside raw and fdatasync";
const SIXTEEN: &str = "16 allocating 4 KiB writes and a flush, beside raw and fdatasync";

const fn convert(
    name: &'static str,
    what: &'static str,
    limit: f64,
    words: &'static [&'static str],
    input: Input,
) -> Case {
    let command = Command { words, input, codes: &[0], is_cold: false, limits_memory: false };
    Case { name, what, goal: Goal::TimeAtMost(limit), kind: Kind::Command(command) }
}

/// QEMU reports leaks that are none, exit 3, in images of this size.
const fn check(
    name: &'static str,
    what: &'static str,
    limit: f64,
    input: Input,
    is_cold: bool,
) -> Case {
    let command = Command { words: CHECK, input, codes: &[0, 3], is_cold, limits_memory: true };
    Case { name, what, goal: Goal::TimeAtMost(limit), kind: Kind::Command(command) }
}

const fn small(
    name: &'static str,
    what: &'static str,
    words: &'static [&'static str],
    input: Input,
) -> Case {
    let command = Command { words, input, codes: &[0], is_cold: false, limits_memory: false };
    Case { name, what, goal: Goal::TimeAtMost(0.5), kind: Kind::Command(command) }
}

const fn flush(name: &'static str, what: &'static str, goal: Goal) -> Case {
    let bench = InProcess { package: "qed-core", bench: "flush" };
    Case { name, what, goal, kind: Kind::InProcess(bench) }
}

const fn requests(
    name: &'static str,
    reference: Reference,
    disk: Disk,
    goal: Goal,
    words: &'static [&'static str],
) -> Case {
    let what = match reference {
        QemuImg(_) => {
            "qed bench beside qemu-img bench, with QED unless the name says another format"
        }
        Imago => "qed bench beside imago with QCOW2",
    };
    let requests = Requests { reference, disk, words };
    Case { name, what, goal, kind: Kind::Requests(requests) }
}

const fn served(
    name: &'static str,
    what: &'static str,
    peer: Peer,
    limit: f64,
    disk: Disk,
    words: &'static [&'static str],
) -> Case {
    let served = Served { peer, disk, words };
    Case { name, what, goal: Goal::SpeedAtLeast(limit), kind: Kind::Served(served) }
}

const fn killed(name: &'static str, layout: Layout, clusters: u64) -> Case {
    let input = Input::Open { layout, clusters, spare_each: false };
    let beside_check = matches!(layout, Layout::Classic);
    let open = DirtyOpen { input, writes: 1000, tables: 8, flush_every: 16, beside_check };
    let what = "open and close after a kill, 1000 writes in 8 tables, beside a clean open";
    Case { name, what, goal: Goal::TimeAtMostPlus5Ms(1.2), kind: Kind::DirtyOpen(open) }
}

const fn killed_classic(name: &'static str, clusters: u64) -> Case {
    let what = "open and close after a kill, all tables in doubt, beside a check and a clean open";
    Case { what, goal: Goal::TimeAtMost(1.2), ..killed(name, Layout::Classic, clusters) }
}
