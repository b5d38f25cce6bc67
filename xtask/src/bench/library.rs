//! The cases of the library beside plain system calls, and of the engine beside itself on a raw file:
//! each work on four kinds of image, as the benches `io` of qed-core and `direct` of qed-engine name
//! them; and what is done about space. Runs nothing.

use super::case::{Case, Goal, InProcess, Kind};

/// A work on an image in compat and in journal mode, alone and over a backing file; one goal for
/// the first two, one for the others.
macro_rules! on_each_image {
    ($name:literal, $what:literal, $alone:expr, $backed:expr) => {
        on_each_image!(io, $name, $what, $alone, $backed)
    };
    ($bench:ident, $name:literal, $what:literal, $alone:expr, $backed:expr) => {
        [
            $bench($name, $what, $alone),
            $bench(concat!($name, "_journal"), concat!($what, ", journal mode"), $alone),
            $bench(concat!($name, "_backing"), concat!($what, ", backed"), $backed),
            $bench(
                concat!($name, "_journal_backing"),
                concat!($what, ", journal mode, backed"),
                $backed,
            ),
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
pub(super) static LIBRARY: [[Case; 4]; 18] = [
    on_each_image!("read_mapped_4k_t1", "reads of data", IN_PLACE, IN_PLACE),
    on_each_image!("read_mapped_4k_t8", "reads of data, 8 at a time", IN_PLACE, IN_PLACE),
    on_each_image!("read_mapped_4k_t32", "reads of data, 32 at a time", IN_PLACE, IN_PLACE),
    on_each_image!("read_mapped_64k_t1", "reads of data", IN_PLACE, IN_PLACE),
    on_each_image!("read_mapped_64k_t8", "reads of data, 8 at a time", IN_PLACE, IN_PLACE),
    on_each_image!("read_mapped_64k_t32", "reads of data, 32 at a time", IN_PLACE, IN_PLACE),
    on_each_image!("write_in_place_4k_t1", "writes over data", IN_PLACE, IN_PLACE),
    on_each_image!("write_in_place_4k_t8", "writes over data, 8 at a time", IN_PLACE, IN_PLACE),
    on_each_image!("write_in_place_4k_t32", "writes over data, 32 at a time", IN_PLACE, IN_PLACE),
    on_each_image!("write_in_place_64k_t1", "writes over data", IN_PLACE, IN_PLACE),
    on_each_image!("write_in_place_64k_t8", "writes over data, 8 at a time", IN_PLACE, IN_PLACE),
    on_each_image!("write_in_place_64k_t32", "writes over data, 32 at a time", IN_PLACE, IN_PLACE),
    on_each_image!("write_allocating_4k_t1", "writes to new clusters", ALLOCATING, COPYING),
    on_each_image!("write_allocating_4k_t8", "writes to new clusters, 8 at a time", ALLOCATING, COPYING),
    on_each_image!("write_allocating_4k_t32", "writes to new clusters, 32 at a time", ALLOCATING, COPYING),
    on_each_image!("write_allocating_64k_t1", "writes to new clusters", SEQUENTIAL, SEQUENTIAL),
    on_each_image!("write_allocating_64k_t8", "writes to new clusters, 8 at a time", SEQUENTIAL, SEQUENTIAL),
    on_each_image!("write_allocating_64k_t32", "writes to new clusters, 32 at a time", SEQUENTIAL, SEQUENTIAL),
];

/// Every case past it, with one thread and so many requests in flight, by work.
#[rustfmt::skip]
pub(super) static DIRECT: [[Case; 4]; 18] = [
    on_each_image!(direct, "direct_read_mapped_4k_q1", "direct reads of data", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_read_mapped_4k_q8", "direct reads of data, 8 at a time", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_read_mapped_4k_q32", "direct reads of data, 32 at a time", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_read_mapped_64k_q1", "direct reads of data", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_read_mapped_64k_q8", "direct reads of data, 8 at a time", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_read_mapped_64k_q32", "direct reads of data, 32 at a time", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_write_in_place_4k_q1", "direct writes over data", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_write_in_place_4k_q8", "direct writes over data, 8 at a time", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_write_in_place_4k_q32", "direct writes over data, 32 at a time", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_write_in_place_64k_q1", "direct writes over data", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_write_in_place_64k_q8", "direct writes over data, 8 at a time", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_write_in_place_64k_q32", "direct writes over data, 32 at a time", IN_PLACE, IN_PLACE),
    on_each_image!(direct, "direct_write_allocating_4k_q1", "direct writes to new clusters", Goal::None, Goal::None),
    on_each_image!(direct, "direct_write_allocating_4k_q8", "direct writes to new clusters, 8 at a time", Goal::None, Goal::None),
    on_each_image!(direct, "direct_write_allocating_4k_q32", "direct writes to new clusters, 32 at a time", DIRECT_ALLOCATING, COPYING),
    on_each_image!(direct, "direct_write_allocating_64k_q1", "direct writes to new clusters", SEQUENTIAL, SEQUENTIAL),
    on_each_image!(direct, "direct_write_allocating_64k_q8", "direct writes to new clusters, 8 at a time", SEQUENTIAL, SEQUENTIAL),
    on_each_image!(direct, "direct_write_allocating_64k_q32", "direct writes to new clusters, 32 at a time", SEQUENTIAL, SEQUENTIAL),
];

/// What is done about space, as the bench `space` of qed names it.
#[rustfmt::skip]
pub(super) static SPACE: [Case; 7] = [
    space("write_reused_64k_beside_raw", "writes into free space, beside a raw file's", Goal::SpeedAtLeast(0.7)),
    space("write_reused_64k_beside_end", "writes into free space, beside those at the end", Goal::SpeedAtLeast(1.0)),
    space("write_reused_4k_beside_raw", "small writes into free space, beside a raw file's", Goal::None),
    space("discard_64g_beside_qemu", "64 GiB given up, beside QEMU's zeros", Goal::TimeAtMost(0.05)),
    space("sweep_10m_beside_check", "10^7 clusters swept, beside our check", Goal::TimeAtMost(1.5)),
    space("read_beside_sweep", "reads beside a sweep, beside those alone", Goal::SpeedAtLeast(0.8)),
    space("compact_10g_beside_cp", "10 GiB with every second cluster free, beside cp", Goal::SpeedAtLeast(0.5)),
];

const fn space(name: &'static str, what: &'static str, goal: Goal) -> Case {
    Case { name, what, goal, kind: Kind::InProcess(InProcess { package: "qed", bench: "space" }) }
}

const fn direct(name: &'static str, what: &'static str, goal: Goal) -> Case {
    let bench = InProcess { package: "qed-engine", bench: "direct" };
    Case { name, what, goal, kind: Kind::InProcess(bench) }
}

const fn io(name: &'static str, what: &'static str, goal: Goal) -> Case {
    let bench = InProcess { package: "qed-core", bench: "io" };
    Case { name, what, goal, kind: Kind::InProcess(bench) }
}
