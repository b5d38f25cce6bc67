//! Times the opening of an image whose writer was killed, then that of the same image, closed; where
//! all tables have to be read, together with a check of it.
//!
//! Each round a writer allocates clusters, flushes as it was told, and is killed; the programs are
//! those of the fuzz crate.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::case::DirtyOpen;
use super::stats::Round;
use crate::{process, repo};

/// Times `rounds` rounds after one that is not counted.
pub(super) fn time(case: &DirtyOpen, qed: &Path, dir: &Path, rounds: usize) -> Result<Vec<Round>> {
    let [writer, opener] = programs()?;
    let image = case.input.path(dir);
    let copy = dir.join("open-dirty.qed");
    let mut measured = Vec::with_capacity(rounds);
    copy_sparse(&image, &copy)?;
    for round in 0..=rounds {
        // One free cluster in each table lasts for one round.
        if case.tables == case.writes {
            copy_sparse(&image, &copy)?;
            write_and_kill(case, &writer, &copy, 0)?;
        } else {
            write_and_kill(case, &writer, &copy, round as u64 * case.writes.div_ceil(case.tables))?;
        }
        process::run(&mut Command::new("sync"))?;
        let ours = timed(Command::new(&opener).arg(&copy))?;
        let clean = || -> Result<Duration> {
            let open = timed(Command::new(&opener).arg(&copy))?;
            let check =
                if case.beside_check { timed(check(qed).arg(&copy))? } else { Duration::ZERO };
            Ok(open + check)
        };
        let (reference, again) = (clean()?, clean()?);
        if round > 0 {
            measured.push(Round { ours, reference, again });
        }
    }
    Ok(measured)
}

/// Builds the programs; the writer and the one that opens.
fn programs() -> Result<[PathBuf; 2]> {
    let names = ["write_until_killed", "open_once"];
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "qed-fuzz"]);
    cargo.args(names.iter().flat_map(|name| ["--bin", name]));
    process::run(cargo.current_dir(repo::root()))?;
    let release = repo::target_dir()?.join("release");
    Ok(names.map(|name| release.join(name)))
}

fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    process::run(Command::new("cp").arg("--sparse=always").arg(from).arg(to))
}

fn write_and_kill(case: &DirtyOpen, writer: &Path, image: &Path, skip: u64) -> Result<()> {
    let mut command = Command::new(writer);
    command.arg(image);
    command.args([case.writes, case.tables, case.flush_every, skip].map(|it| it.to_string()));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| process::line(&command))?;
    let mut said = String::new();
    let output = child.stdout.take().context("the writer has no output")?;
    BufReader::new(output).read_line(&mut said)?;
    child.kill()?;
    child.wait()?;
    if said != "written\n" {
        bail!("{} said {said:?}", process::line(&command));
    }
    Ok(())
}

fn check(qed: &Path) -> Command {
    let mut command = Command::new(qed);
    command.args(["check", "-q", "-f", "qed"]);
    command
}

fn timed(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.status().with_context(|| process::line(command))?;
    let time = start.elapsed();
    // 3 says that the check found leaks, which a crash leaves.
    if !matches!(status.code(), Some(0 | 3)) {
        bail!("{} ended with {status}", process::line(command));
    }
    Ok(time)
}
