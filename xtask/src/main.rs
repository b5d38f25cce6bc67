//! The developer tasks: `cargo xtask NAME`. Owns the list of tasks and nothing of what they do.
//!
//! Links none of the workspace's crates: it starts their programs and reads what they print.
#![forbid(unsafe_code)]

mod bench;
mod conformance;
mod coverage;
mod crash;
mod fuzz;
mod golden;
mod instructions;
mod lint;
mod man;
mod mutants;
mod package;
mod problem;
mod process;
mod repo;
mod scratch;
mod security;
mod soak;
mod spec;
mod test;
mod tidy;
mod tools;
mod tree;
mod vectors;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

/// One task: its name, the line that `cargo xtask` prints for it, and what it does with the words
/// after its name.
struct Task {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const TASKS: &[Task] = &[
    Task { name: "ci", help: "everything that .ci/run does", run: test::ci },
    Task { name: "test", help: "./test: install what is missing, run every test", run: test::run },
    Task { name: "lint", help: "rustfmt, clippy, rustdoc, shellcheck", run: lint::run },
    Task { name: "tidy", help: "the rules of this tree that no compiler knows", run: tidy::run },
    Task { name: "spec", help: "write the register of clauses: spec [--check]", run: spec::run },
    Task { name: "golden", help: "golden images of QEMU: golden [--bless]", run: golden::run },
    Task { name: "coverage", help: "the lines that the tests run", run: coverage::run },
    Task {
        name: "mutants",
        help: "change the libraries, see tests fail: mutants [--resume] [CRATE..]",
        run: mutants::run,
    },
    Task {
        name: "conformance",
        help: "hold implementations against the vectors: conformance [--help]",
        run: conformance::run,
    },
    Task { name: "vectors", help: "write computed vectors: vectors [--check]", run: vectors::run },
    Task { name: "package", help: "cargo package for every published crate", run: package::run },
    Task { name: "security", help: "write the hostile cases into SECURITY.md", run: security::run },
    Task { name: "man", help: "make the man pages in target/man and check them", run: man::run },
    Task { name: "bench", help: "time qed: bench [--list] [CASE..]", run: bench::run },
    Task { name: "instructions", help: "count instructions of hot paths", run: instructions::run },
    Task { name: "guests", help: "kill and move guests: guests [--times N]", run: soak::guests },
    Task {
        name: "fuzz",
        help: "run fuzz targets: fuzz all|TARGET.. [--secs N] [--jobs N] [--minimise]",
        run: fuzz::run,
    },
    Task {
        name: "crash",
        help: "judge crash states: crash [--states N] [--seed S] [--mode M] [--mutant M|all]",
        run: crash::run,
    },
    Task {
        name: "sanitize",
        help: "the tests of what threads share under the thread sanitizer: sanitize [TEST..]",
        run: |words| test::script("scripts/sanitize.sh", words),
    },
    Task { name: "soak", help: "a hundred connections: soak [--seconds N]", run: soak::run },
    Task { name: "seeds", help: "make the seeds of the fuzz targets anew", run: fuzz::seeds },
    Task {
        name: "fresh",
        help: "./demo and ./test in new Debian roots (needs root)",
        run: |words| test::script("scripts/fresh.sh", words),
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[String]) -> Result<()> {
    let Some((name, rest)) = words.split_first() else {
        print_help();
        bail!("no task is named");
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print_help();
        return Ok(());
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        print_help();
        bail!("there is no task {name}");
    };
    (task.run)(rest)
}

fn print_help() {
    println!("cargo xtask TASK, one of:");
    for task in TASKS {
        println!("  {:<12} {}", task.name, task.help);
    }
}
