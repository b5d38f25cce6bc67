//! The list of cases, as data: what is run, on what, and what it has to reach. Runs nothing.
//!
//! A case is named operation_state_size.

use super::input::Input;

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
    /// At least this part of the reference's speed.
    SpeedAtLeast(f64),
}

/// How a case is run.
pub(super) enum Kind {
    Command(Command),
    InProcess(InProcess),
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

/// Without durability on either side, so that the disk is not what is timed.
const RAW: &[&str] = &["convert", "-t", "unsafe", "-f", "raw", "-O", "qed", "IN", "OUT"];
const QCOW2: &[&str] = &["convert", "-t", "unsafe", "-f", "qcow2", "-O", "qed", "IN", "OUT"];
const CHECK: &[&str] = &["check", "-f", "qed", "IN"];
const INFO: &[&str] = &["info", "-f", "qed", "IN"];
const CREATE: &[&str] = &["create", "-q", "-f", "qed", "OUT", "4G"];

/// Every case.
pub(super) static CASES: [Case; 13] = [
    convert("convert_raw_4g", "raw to QED, cached", 0.9, RAW, Input::Raw),
    convert("convert_qcow2_4g", "QCOW2 to QED, cached", 0.9, QCOW2, Input::Qcow2),
    convert("convert_qcow2_zlib_4g", "zlib clusters to QED", 0.5, QCOW2, Input::Qcow2Zlib),
    convert("convert_qcow2_zstd_4g", "zstd clusters to QED", 0.7, QCOW2, Input::Qcow2Zstd),
    check("check_warm_1e7", "full check, cached", 0.2, Input::FullSequential, false),
    check("check_cold_1e7", "full check, caches dropped", 0.35, Input::FullSequential, true),
    check("check_warm_1e7_scattered", "full check, cached", 0.2, Input::FullScattered, false),
    check("check_cold_1e7_scattered", "full check, dropped", 0.35, Input::FullScattered, true),
    small("info_warm_1e7", "info", INFO, Input::FullSequential),
    small("create_warm_4g", "create", CREATE, Input::None),
    in_process("read_mapped_4k", "mapped cached 4 KiB reads beside pread", 0.9),
    in_process("write_allocating_4k_t1", "allocating 4 KiB writes beside pwrite, 1 thread", 0.6),
    in_process("write_allocating_4k_t8", "allocating 4 KiB writes beside pwrite, 8 threads", 0.6),
];

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

const fn in_process(name: &'static str, what: &'static str, limit: f64) -> Case {
    let bench = InProcess { package: "qed-core", bench: "io" };
    Case { name, what, goal: Goal::SpeedAtLeast(limit), kind: Kind::InProcess(bench) }
}
