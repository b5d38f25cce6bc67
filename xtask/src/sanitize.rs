//! The thread sanitizer: the tests of the crates that several threads use, with every access to
//! memory watched, those of the standard library included. Needs a nightly toolchain with the
//! sources of that library; knows no test.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{process, repo};

/// The crates that threads share.
const CRATES: [&str; 3] = ["qed-core", "qed-journal", "qed-export"];
/// A toolchain that has sanitizers, and what brings it.
const TOOLCHAIN: &str = "nightly";
const HOW: &str = "rustup toolchain install nightly --component rust-src";
const FLAG: &str = "-Zsanitizer=thread";
/// What the sanitizer prints first of every race.
const FINDING: &str = "WARNING: ThreadSanitizer: data race";

/// Two threads that add to one number without a word between them.
const RACE: &str = "\
static mut SUM: u64 = 0;
fn main() {
    let add = || (0..1000).for_each(|_| unsafe { SUM += 1 });
    let threads = [std::thread::spawn(add), std::thread::spawn(add)];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
";

/// Sees that a race is found at all, then runs the tests; words after the task go to them.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let sources = sources()?;
    ensure!(sources.exists(), "{} is missing: {HOW}", sources.display());
    let folder = repo::target_dir()?.join("sanitize");
    find_a_race(&folder)?;
    let mut tests = nightly("cargo");
    // The standard library takes part: what it does between threads would look like races else.
    tests.args(["test", "--locked", "-Zbuild-std", "--target", &host()?]);
    tests.args(CRATES.iter().flat_map(|name| ["--package", name]));
    // Not the interleavings, whose threads take turns on stacks that the sanitizer does not know.
    tests.args(["--lib", "--test", "it", "--"]).args(words).current_dir(repo::root());
    tests.env("RUSTFLAGS", FLAG).env("CARGO_TARGET_DIR", &folder);
    process::run(&mut tests)
}

/// The sources of the standard library.
fn sources() -> Result<std::path::PathBuf> {
    let sysroot = process::output(nightly("rustc").args(["--print", "sysroot"]))
        .with_context(|| format!("the nightly toolchain is missing: {HOW}"))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock"))
}

/// Compiles and runs a program with a race, which has to be told.
fn find_a_race(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let (source, program) = (folder.join("race.rs"), folder.join("race"));
    fs::write(&source, RACE)?;
    let mut rustc = nightly("rustc");
    // The race is not in the standard library, which is the toolchain's own here.
    rustc.args([FLAG, "-Cunsafe-allow-abi-mismatch=sanitizer", "--edition=2024"]);
    process::run(rustc.arg(&source).arg("-o").arg(&program))?;
    let ran = Command::new(&program).stdin(Stdio::null()).output().context("the race")?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() || !said.contains(FINDING) {
        bail!("the thread sanitizer does not find a race ({}): {said}", ran.status);
    }
    Ok(())
}

/// The triple of this machine: with a target named, build scripts are built without the sanitizer.
fn host() -> Result<String> {
    let said = process::output(nightly("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// A program of the nightly toolchain, whatever toolchain runs this task.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, program]);
    // Of the cargo that runs this task.
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
}
