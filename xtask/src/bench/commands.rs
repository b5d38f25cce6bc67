//! Times whole programs: ours, the reference and the reference again, in turn. Knows how a run is
//! prepared and measured, not what the numbers mean.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::case;
use super::stats::Round;
use crate::process;

const REFERENCE: &str = "qemu-img";
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// More than the page cache takes for the output of any case.
const TOUCHED_BYTES: usize = 2 << 30;
const TOUCHED_BYTES_PER_WRITE: usize = 1 << 20;

/// Peak memory in bytes, of one run of each.
pub(super) struct Memory {
    pub(super) ours: u64,
    pub(super) reference: u64,
}

/// Times `rounds` rounds after one that is not counted. Which one begins changes from round to round.
pub(super) fn time(
    case: &case::Command,
    qed: &Path,
    dir: &Path,
    rounds: usize,
) -> Result<Vec<Round>> {
    let programs = [qed, Path::new(REFERENCE), Path::new(REFERENCE)];
    let mut measured = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let mut times = [Duration::ZERO; 3];
        for turn in 0..3 {
            let who = (round + turn) % 3;
            times[who] = time_one(case, programs[who], dir)?;
        }
        if round > 0 {
            let [ours, reference, again] = times;
            measured.push(Round { ours, reference, again });
        }
    }
    Ok(measured)
}

fn time_one(case: &case::Command, program: &Path, dir: &Path) -> Result<Duration> {
    prepare(case, dir)?;
    let mut command = command(case, program, dir);
    let start = Instant::now();
    let status = command.status().with_context(|| process::line(&command))?;
    let time = start.elapsed();
    if !status.code().is_some_and(|code| case.codes.contains(&code)) {
        bail!("{} ended with {status}", process::line(&command));
    }
    Ok(time)
}

/// The peak memory of each program, by GNU time, in a run of its own.
pub(super) fn peak_memory(case: &case::Command, qed: &Path, dir: &Path) -> Result<Memory> {
    let peak = |program: &Path| -> Result<u64> {
        prepare(case, dir)?;
        let inner = command(case, program, dir);
        let mut time = Command::new("/usr/bin/time");
        time.args(["--quiet", "--format", "%M"]).arg(inner.get_program()).args(inner.get_args());
        let output = time.stdout(Stdio::null()).output();
        let output = output.context("/usr/bin/time is missing: Debian package time")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let kib = said.lines().last().and_then(|line| line.trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{} said {said}", process::line(&time)))? * 1024)
    };
    Ok(Memory { ours: peak(qed)?, reference: peak(Path::new(REFERENCE))? })
}

fn prepare(case: &case::Command, dir: &Path) -> Result<()> {
    let output = output_path(dir);
    if output.exists() {
        fs::remove_file(output)?;
    }
    process::run(&mut Command::new("sync"))?;
    if case.is_cold {
        fs::write(DROP_CACHES, "3").with_context(|| format!("{DROP_CACHES}: needs root"))?;
    }
    if case.is_cold { Ok(()) } else { touch_page_cache(dir) }
}

/// Fills and frees as much page cache as the run will take. In a virtual machine that returns free
/// pages to its host the first use of each is slow, for whichever program comes first.
fn touch_page_cache(dir: &Path) -> Result<()> {
    let path = dir.join("touched");
    let bytes = vec![1; TOUCHED_BYTES_PER_WRITE];
    let mut file = File::create(&path)?;
    for _ in 0..TOUCHED_BYTES / TOUCHED_BYTES_PER_WRITE {
        file.write_all(&bytes)?;
    }
    Ok(fs::remove_file(path)?)
}

fn command(case: &case::Command, program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    for word in case.words {
        match *word {
            "IN" => command.arg(case.input.path(dir)),
            "OUT" => command.arg(output_path(dir)),
            word => command.arg(word),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn output_path(dir: &Path) -> PathBuf {
    dir.join("output.img")
}
