//! Times `qed bench` beside `qemu-img bench` or a peer: the same requests, each program to a new image,
//! or both to one that is full. The time is the one that the programs print.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::case::{Disk, Reference, Requests};
use super::input::Input;
use super::stats::Round;
use crate::{process, repo};

/// The sender of requests.
#[derive(Clone, Copy)]
enum Who<'a> {
    Ours(&'a Path),
    QemuImg { format: &'static str },
    Imago(&'a Path),
}

/// Times `rounds` rounds after one that is not counted. Which one begins changes from round to round.
pub(super) fn time(case: &Requests, qed: &Path, dir: &Path, rounds: usize) -> Result<Vec<Round>> {
    let imago = match case.reference {
        Reference::Imago => build_imago()?,
        Reference::QemuImg(_) => PathBuf::new(),
    };
    let reference = match case.reference {
        Reference::QemuImg(format) => Who::QemuImg { format },
        Reference::Imago => Who::Imago(&imago),
    };
    let programs = [Who::Ours(qed), reference, reference];
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
    match case.disk {
        Disk::Fresh | Disk::Overlay => fs::remove_file(dir.join(IMAGE))?,
        Disk::Full => {}
    }
    Ok(measured)
}

const IMAGE: &str = "requests.img";

fn time_one(case: &Requests, who: Who<'_>, dir: &Path) -> Result<Duration> {
    let image = match case.disk {
        Disk::Full => Input::FullQed.path(dir),
        Disk::Fresh => {
            let image = dir.join(IMAGE);
            process::run(create(who).arg(&image).arg("4G"))?;
            image
        }
        Disk::Overlay => {
            let image = dir.join(IMAGE);
            let raw = Input::FullRaw.path(dir);
            process::run(create(who).args(["-F", "raw", "-b"]).args([&raw, &image]))?;
            image
        }
    };
    process::run(&mut Command::new("sync"))?;
    let mut bench = bench(who, case.words)?;
    let printed = process::output(bench.arg(&image))?;
    seconds(&printed).with_context(|| format!("{} printed {printed}", process::line(&bench)))
}

fn create(who: Who<'_>) -> Command {
    let (program, format) = match who {
        Who::Ours(qed) => (qed, "qed"),
        Who::QemuImg { format } => (Path::new("qemu-img"), format),
        Who::Imago(_) => (Path::new("qemu-img"), "qcow2"),
    };
    let mut create = Command::new(program);
    create.args(["create", "-q", "-f", format]);
    create
}

fn bench(who: Who<'_>, words: &[&str]) -> Result<Command> {
    let (program, format) = match who {
        Who::Ours(qed) => (qed, "qed"),
        Who::QemuImg { format } => (Path::new("qemu-img"), format),
        Who::Imago(program) => {
            let mut bench = Command::new(program);
            bench.args([value(words, "-c")?, value(words, "-d")?]);
            return Ok(bench);
        }
    };
    let mut bench = Command::new(program);
    bench.args(["bench", "-f", format]).args(words);
    Ok(bench)
}

fn value<'a>(words: &[&'a str], option: &str) -> Result<&'a str> {
    let mut behind = words.iter().skip_while(|word| **word != option).skip(1);
    behind.next().copied().with_context(|| format!("the case has no {option}"))
}

/// Builds the program in `xtask/peers`, which is no part of the workspace.
fn build_imago() -> Result<PathBuf> {
    let target = repo::target_dir()?.join("peers");
    let manifest = repo::root().join("xtask/peers/imago/Cargo.toml");
    let mut cargo = process::cargo();
    cargo.args(["build", "--locked", "--release", "--manifest-path"]).arg(manifest);
    process::run(cargo.arg("--target-dir").arg(&target))?;
    Ok(target.join("release/imago-bench"))
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
