//! Times `qed bench` beside `qemu-img bench`: the same requests, each program to a new image that it
//! has made, or both to one that is full. The time is the one that the programs print.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::case::{Disk, Requests};
use super::input::Input;
use super::stats::Round;
use crate::process;

const REFERENCE: &str = "qemu-img";

/// Times `rounds` rounds after one that is not counted. Who begins changes from round to round.
pub(super) fn time(case: &Requests, qed: &Path, dir: &Path, rounds: usize) -> Result<Vec<Round>> {
    let programs = [qed, Path::new(REFERENCE), Path::new(REFERENCE)];
    let mut measured = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let mut times = [Duration::ZERO; 3];
        for turn in 0..programs.len() {
            let who = (round + turn) % programs.len();
            times[who] = time_one(case, programs[who], dir)?;
        }
        if round > 0 {
            let [ours, reference, again] = times;
            measured.push(Round { ours, reference, again });
        }
    }
    if let Disk::Fresh = case.disk {
        fs::remove_file(dir.join(IMAGE))?;
    }
    Ok(measured)
}

const IMAGE: &str = "requests.img";

fn time_one(case: &Requests, program: &Path, dir: &Path) -> Result<Duration> {
    let format = if program == Path::new(REFERENCE) { case.reference_format } else { "qed" };
    let image = match case.disk {
        Disk::Full => Input::FullQed.path(dir),
        Disk::Fresh => {
            let image = dir.join(IMAGE);
            let create = ["create", "-q", "-f", format];
            process::run(Command::new(program).args(create).arg(&image).arg("4G"))?;
            image
        }
    };
    process::run(&mut Command::new("sync"))?;
    let mut bench = Command::new(program);
    bench.args(["bench", "-f", format]).args(case.words).arg(&image);
    let printed = process::output(&mut bench)?;
    seconds(&printed).with_context(|| format!("{} printed {printed}", process::line(&bench)))
}

fn seconds(printed: &str) -> Option<Duration> {
    let (_, behind) = printed.split_once("Run completed in ")?;
    let (seconds, _) = behind.split_once(" seconds.")?;
    Some(Duration::from_secs_f64(seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_read_and_nothing_else_taken_for_one() {
        let printed = "Sending 9 write requests, ..\nRun completed in 1.250 seconds.\n";
        assert_eq!(seconds(printed), Some(Duration::from_millis(1250)));
        assert_eq!(seconds("Run completed in a while seconds."), None);
        assert_eq!(seconds("Failed request"), None);
    }
}
