//! The cases of the library beside plain system calls, and of the engine beside itself on a raw file:
//! each work on four kinds of image, as the benches `io` of qed-core and `direct` of qed-engine name
//! them; and what is done about space. Runs nothing.

use super::case::{Case, Goal, InProcess, Kind};

/// A work on an image in compat and in journal mode, alone and over a backing file; one goal for
/// the first two, one for the others.
#[rustfmt::skip]
macro_rules! on_each_image {
    ($bench:ident, $name:expr, $what:expr, $alone:expr, $backed:expr) => {
        [
            of($bench, $name, $what, $alone),
            of($bench, concat!($name, "_journal"), concat!($what, ", journal mode"), $alone),
            of($bench, concat!($name, "_backing"), concat!($what, ", backed"), $backed),
            of($bench, concat!($name, "_journal_backing"), concat!($what, ", journal mode, backed"), $backed),
        ]
    };
}

/// The same with 1, 8 and 32 at a time.
#[rustfmt::skip]
macro_rules! at_each_depth {
    ($bench:ident, $name:literal, $what:literal, $goals:expr, $backed:expr) => {
        [
            on_each_image!($bench, concat!($name, "1"), $what, $goals[0], $backed[0]),
            on_each_image!($bench, concat!($name, "8"), concat!($what, ", 8 at a time"), $goals[1], $backed[1]),
            on_each_image!($bench, concat!($name, "32"), concat!($what, ", 32 at a time"), $goals[2], $backed[2]),
        ]
    };
}

/// Of the speed of the same system call on a raw file.
const IN_PLACE: Goal = Goal::SpeedAtLeast(0.95);
const ALLOCATING: Goal = Goal::SpeedAtLeast(0.8);
const DIRECT_ALLOCATING: Goal = Goal::SpeedAtLeast(0.9);
const SEQUENTIAL: Goal = Goal::SpeedAtLeast(0.9);
/// A cluster of the backing file is copied for each write, and raw has nothing like it.
const COPYING: Goal = Goal::SpeedAtLeast(0.5);

/// Every case in the page cache, with so many threads, by work.
#[rustfmt::skip]
pub(super) static LIBRARY: [[[Case; 4]; 3]; 6] = [
    at_each_depth!(IO, "read_mapped_4k_t", "reads of data", [IN_PLACE; 3], [IN_PLACE; 3]),
    at_each_depth!(IO, "read_mapped_64k_t", "reads of data", [IN_PLACE; 3], [IN_PLACE; 3]),
    at_each_depth!(IO, "write_in_place_4k_t", "writes over data", [IN_PLACE; 3], [IN_PLACE; 3]),
    at_each_depth!(IO, "write_in_place_64k_t", "writes over data", [IN_PLACE; 3], [IN_PLACE; 3]),
    at_each_depth!(IO, "write_allocating_4k_t", "writes to new clusters", [ALLOCATING; 3], [COPYING; 3]),
    at_each_depth!(IO, "write_allocating_64k_t", "writes to new clusters", [SEQUENTIAL; 3], [SEQUENTIAL; 3]),
];

/// Every case past it, with one thread and so many requests in flight, by work.
#[rustfmt::skip]
pub(super) static DIRECT: [[[Case; 4]; 3]; 6] = [
    at_each_depth!(ENGINE, "direct_read_mapped_4k_q", "direct reads of data", [IN_PLACE; 3], [IN_PLACE; 3]),
    at_each_depth!(ENGINE, "direct_read_mapped_64k_q", "direct reads of data", [IN_PLACE; 3], [IN_PLACE; 3]),
    at_each_depth!(ENGINE, "direct_write_in_place_4k_q", "direct writes over data", [IN_PLACE; 3], [IN_PLACE; 3]),
    at_each_depth!(ENGINE, "direct_write_in_place_64k_q", "direct writes over data", [IN_PLACE; 3], [IN_PLACE; 3]),
    at_each_depth!(ENGINE, "direct_write_allocating_4k_q", "direct writes to new clusters",
        [Goal::None, Goal::None, DIRECT_ALLOCATING], [Goal::None, Goal::None, COPYING]),
    at_each_depth!(ENGINE, "direct_write_allocating_64k_q", "direct writes to new clusters", [SEQUENTIAL; 3], [SEQUENTIAL; 3]),
];

/// What is served to virtual machines and as a file, beside qemu-storage-daemon with a raw file unless the
/// name says otherwise, as the bench `served` of qed-cli names it.
#[rustfmt::skip]
pub(super) static SERVED: [Case; 20] = [
    of(GUESTS, "vhost_read_4k_q1", "vhost-user: reads of data", Goal::SpeedAtLeast(1.5)),
    of(GUESTS, "vhost_read_4k_q32", "vhost-user: reads of data, 32 at a time", Goal::SpeedAtLeast(1.5)),
    of(GUESTS, "vhost_write_allocating_4k_q32", "vhost-user: writes to new clusters, 32 at a time", Goal::SpeedAtLeast(0.9)),
    of(GUESTS, "vhost_write_in_place_4k_q32", "vhost-user: writes over data, 32 at a time", Goal::SpeedAtLeast(1.2)),
    of(GUESTS, "vhost_read_1m_q4", "vhost-user: all of a disk, read", Goal::SpeedAtLeast(1.0)),
    of(GUESTS, "vhost_write_1m_q4", "vhost-user: all of a disk, written over", Goal::SpeedAtLeast(1.0)),
    of(GUESTS, "vhost_read_4k_q32x4", "vhost-user: reads by four queues", Goal::SpeedAtLeast(1.5)),
    of(GUESTS, "vhost_read_4k_q32x4_beside_one", "vhost-user: reads by four queues, beside by one", Goal::None),
    of(GUESTS, "vhost_read_4k_q32_qed", "vhost-user: reads of data, beside QEMU's QED", Goal::None),
    of(GUESTS, "vhost_write_allocating_4k_q32_qed", "vhost-user: writes to new clusters, beside QEMU's QED", Goal::None),
    of(GUESTS, "vhost_write_in_place_4k_q32_qed", "vhost-user: writes over data, beside QEMU's QED", Goal::None),
    of(GUESTS, "vhost_raw_read_4k_q32", "vhost-user: reads of a raw file by both", Goal::None),
    of(GUESTS, "vhost_direct_read_4k_q32", "vhost-user, -t none: reads of data", Goal::None),
    of(GUESTS, "vhost_direct_write_in_place_4k_q32", "vhost-user, -t none: writes over data", Goal::None),
    of(GUESTS, "vhost_direct_write_allocating_4k_q32", "vhost-user, -t none: writes to new clusters", Goal::None),
    of(GUESTS, "fuse_read_4k_q1", "FUSE: reads of data", Goal::None),
    of(GUESTS, "fuse_read_4k_q32", "FUSE: reads of data, 32 at a time", Goal::SpeedAtLeast(1.5)),
    of(GUESTS, "fuse_write_in_place_4k_q32", "FUSE: writes over data, 32 at a time", Goal::None),
    of(GUESTS, "fuse_read_1m_q4", "FUSE: all of a disk, read", Goal::SpeedAtLeast(1.2)),
    of(GUESTS, "fuse_write_1m_q4", "FUSE: all of a disk, written over", Goal::SpeedAtLeast(1.2)),
];

/// What is done about space, and what the pending log costs, as the benches of qed name them.
#[rustfmt::skip]
pub(super) static SPACE: [Case; 10] = [
    of(OF_SPACE, "write_reused_64k_beside_raw", "writes into free space, beside a raw file's", Goal::SpeedAtLeast(0.7)),
    of(OF_SPACE, "write_reused_64k_beside_end", "writes into free space, beside those at the end", Goal::SpeedAtLeast(1.0)),
    of(OF_SPACE, "write_reused_4k_beside_raw", "small writes into free space, beside a raw file's", Goal::None),
    of(OF_SPACE, "discard_64g_beside_qemu", "64 GiB given up, beside QEMU's zeros", Goal::TimeAtMost(0.05)),
    of(OF_SPACE, "sweep_10m_beside_check", "10^7 clusters swept, beside our check", Goal::TimeAtMost(1.5)),
    of(OF_SPACE, "read_beside_sweep", "reads beside a sweep, beside those alone", Goal::SpeedAtLeast(0.8)),
    of(OF_SPACE, "compact_10g_beside_cp", "10 GiB with every second cluster free, beside cp", Goal::SpeedAtLeast(0.5)),
    of(PENDING, "write_logged_4k", "writes to new clusters with a pending log, beside without", Goal::TimeAtMost(1.05)),
    of(PENDING, "write_logged_4k_t2", "the same, by two threads", Goal::TimeAtMost(1.05)),
    of(PENDING, "write_logged_4k_t16", "the same, by 16 threads", Goal::TimeAtMost(1.05)),
];

const IO: InProcess = InProcess { package: "qed-core", bench: "io" };
const ENGINE: InProcess = InProcess { package: "qed-engine", bench: "direct" };
const OF_SPACE: InProcess = InProcess { package: "qed", bench: "space" };
const PENDING: InProcess = InProcess { package: "qed", bench: "pending" };
const GUESTS: InProcess = InProcess { package: "qed-cli", bench: "served" };

const fn of(bench: InProcess, name: &'static str, what: &'static str, goal: Goal) -> Case {
    Case { name, what, goal, kind: Kind::InProcess(bench) }
}
