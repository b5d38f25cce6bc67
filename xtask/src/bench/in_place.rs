//! Times `qed convert-in-place` beside `qemu-img convert` of the same QCOW2 image. Each run is taken
//! back by `--undo`, which is not timed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::input::Input;
use super::stats::Round;
use crate::process;

/// Times `rounds` rounds after one that is not counted.
pub(super) fn time(input: Input, qed: &Path, dir: &Path, rounds: usize) -> Result<Vec<Round>> {
    let image = input.path(dir);
    let mut measured = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        process::run(&mut Command::new("sync"))?;
        let in_place = |option: &[&str]| {
            let mut command = Command::new(qed);
            command.args(["convert-in-place", "-q"]).args(option).arg(&image);
            command
        };
        let ours = timed(&mut in_place(&[]))?;
        process::run(&mut in_place(&["--undo"]))?;
        let reference = copied(&image, dir)?;
        let again = copied(&image, dir)?;
        if round > 0 {
            measured.push(Round { ours, reference, again });
        }
    }
    Ok(measured)
}

fn copied(image: &Path, dir: &Path) -> Result<Duration> {
    let output = dir.join("output.img");
    if output.exists() {
        fs::remove_file(&output)?;
    }
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-t", "unsafe", "-f", "qcow2", "-O", "qed"]).arg(image).arg(output);
    timed(&mut command)
}

fn timed(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    process::run(command)?;
    Ok(start.elapsed())
}
