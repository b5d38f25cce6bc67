//! The runner: the vectors against everything that is here, and the runner against programs that
//! are wrong.

mod command_line;
mod everything;
mod reports;
mod servers;
mod wrong;

use conformance::{Clauses, Implementation, Limits, Program, Report, Vector, load, run};

use crate::support::Folder;

/// A vector that every sound implementation passes, and one that it refuses.
const TWO: &str = r#"
    [[vector]]
    name = "sound"
    clauses = ["QED-HDR-01", "QED-RW-01"]
    what = "one data cluster and one zero cluster"
    file_len = 655360
    runs = [
        { at = 65536, u64 = [327680] },
        { at = 327680, u64 = [589824, 1] },
        { at = 589824, fill = { byte = 0xa5, len = 65536 } },
    ]
    [vector.expect]
    open = "accept"
    size = 1048576
    cluster_size = 65536
    map = [
        { at = 0, len = 65536, kind = "data", host = 589824 },
        { at = 65536, len = 65536, kind = "zero" },
        { at = 131072, len = 917504, kind = "unallocated" },
    ]
    content = [{ at = 65528, hex = "a5a5a5a5a5a5a5a5 00" }, { at = 131072, fill = { byte = 0, len = 512 } }]
    check = "clean"
    findings = []

    [[vector]]
    name = "refused"
    clauses = ["QED-HDR-02"]
    what = "another magic"
    file_len = 655360
    runs = [{ at = 3, hex = "01" }]
    [vector.expect]
    open = { reject = "QED-HDR-02" }
    check = "refused"
"#;

/// QEMU follows a backing file that names itself until it is stopped; anything else takes it less
/// than a second.
fn of_qemu() -> Limits {
    Limits { cpu_seconds: 2, ..Limits::default() }
}

/// The installed qemu-img.
#[track_caller]
fn qemu_img() -> Program {
    Program::new("qemu-img".as_ref(), of_qemu())
        .unwrap_or_else(|error| panic!("{error}: install the Debian package qemu-utils"))
}

/// The vectors of this text.
fn vectors_of(text: &str) -> Vec<Vector> {
    let folder = Folder::new();
    std::fs::write(folder.file("a.toml"), text).unwrap();
    load(folder.path(), &Clauses::of_specification()).unwrap_or_else(|error| panic!("{error}"))
}

fn run_on(implementation: &dyn Implementation, vectors: &[Vector]) -> Report {
    run(implementation, vectors, &Clauses::of_specification(), Folder::new().path()).unwrap()
}

/// What failed, as the runner tells it.
fn failures(report: &Report) -> String {
    conformance::to_table(report, &Clauses::of_specification())
}
