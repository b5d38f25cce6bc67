//! Times requests to `qed serve` beside the same requests to another NBD server with a raw file: fio
//! is the client of both. Each run has a server of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::case::{Disk, Peer, Served};
use super::input::Input;
use super::stats::Round;
use crate::process;

/// Bytes of a disk that begins empty.
const FRESH_BYTES: u64 = 4 << 30;
/// A server that takes longer to listen is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server.
#[derive(Clone, Copy)]
enum Who {
    Ours,
    Peer,
}

/// Times `rounds` rounds after one that is not counted; a time is that of one request, with as many
/// in flight as the case says. Which one begins changes from round to round.
pub(super) fn time(case: &Served, qed: &Path, dir: &Path, rounds: usize) -> Result<Vec<Round>> {
    let all = [Who::Ours, Who::Peer, Who::Peer];
    let mut measured = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let mut times = [Duration::ZERO; 3];
        for turn in 0..all.len() {
            let number = (round + turn) % all.len();
            times[number] = time_one(case, all[number], qed, dir)?;
        }
        if round > 0 {
            let [ours, reference, again] = times;
            measured.push(Round { ours, reference, again });
        }
    }
    Ok(measured)
}

fn time_one(case: &Served, who: Who, qed: &Path, dir: &Path) -> Result<Duration> {
    let image = image(case.disk, who, qed, dir)?;
    process::run(&mut Command::new("sync"))?;
    let server = Server::start(&mut command(case.peer, who, qed, &image, dir), dir)?;
    let time = fio(case, dir)?;
    server.stop();
    Ok(time)
}

/// The same file, all of it read: else the first of two that read it at random waits for the disk.
fn in_page_cache(path: PathBuf) -> Result<PathBuf> {
    io::copy(&mut File::open(&path)?, &mut io::sink())?;
    Ok(path)
}

/// The image that is served, made anew if it has to be empty.
fn image(disk: Disk, who: Who, qed: &Path, dir: &Path) -> Result<PathBuf> {
    let full = Input::FullRaw.path(dir);
    let size = FRESH_BYTES.to_string();
    match (disk, who) {
        (Disk::Full, Who::Ours) => in_page_cache(Input::FullQed.path(dir)),
        (Disk::Full | Disk::Overlay, Who::Peer) => in_page_cache(full),
        (Disk::Overlay, Who::Ours) => {
            let image = dir.join("overlay.qed");
            create(qed, &[in_page_cache(full)?.as_path(), &image], &["-F", "raw", "-b"])?;
            Ok(image)
        }
        (Disk::Fresh, Who::Ours) => {
            let image = dir.join("fresh.qed");
            create(qed, &[&image, Path::new(&size)], &[])?;
            Ok(image)
        }
        (Disk::Fresh, Who::Peer) => {
            let image = dir.join("fresh.raw");
            File::create(&image)?.set_len(FRESH_BYTES)?;
            Ok(image)
        }
    }
}

fn create(qed: &Path, names: &[&Path], options: &[&str]) -> Result<()> {
    let mut create = Command::new(qed);
    process::run(create.args(["create", "-q", "-f", "qed"]).args(options).args(names))
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("bench.sock")
}

fn command(peer: Peer, who: Who, qed: &Path, image: &Path, dir: &Path) -> Command {
    let mut command = Command::new(match (who, peer) {
        (Who::Ours, _) => qed.as_os_str(),
        (Who::Peer, Peer::Nbdkit) => "nbdkit".as_ref(),
        (Who::Peer, Peer::QemuNbd) => "qemu-nbd".as_ref(),
    });
    match (who, peer) {
        (Who::Ours, _) => command.args(["serve", "-f", "qed", "--socket"]).arg(socket(dir)),
        (Who::Peer, Peer::Nbdkit) => command.args(["-f", "-U"]).arg(socket(dir)).arg("file"),
        (Who::Peer, Peer::QemuNbd) => {
            command.args(["-t", "-f", "raw", "--shared=8", "-k"]).arg(socket(dir))
        }
    };
    command.arg(image).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A server that listens.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, dir: &Path) -> Result<Self> {
        let socket = socket(dir);
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let line = process::line(command);
        let child = command.spawn().with_context(|| {
            format!("{line}: Debian packages nbdkit and qemu-utils have the servers")
        })?;
        let mut server = Self(child);
        let start = Instant::now();
        while !socket.exists() {
            if let Some(status) = server.0.try_wait()? {
                bail!("{line} ended with {status}");
            }
            if start.elapsed() > PATIENCE {
                bail!("{line} does not listen");
            }
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Ends it without a word: nothing of what it still does is timed or looked at.
    fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// The time of one request.
fn fio(case: &Served, dir: &Path) -> Result<Duration> {
    let mut command = Command::new("fio");
    command.args(["--name=bench", "--ioengine=nbd", "--group_reporting", "--output-format=json"]);
    command.arg(format!("--uri=nbd+unix:///?socket={}", socket(dir).display()));
    command.args(case.words);
    let printed = process::output(&mut command).context("fio: Debian package fio")?;
    // The engine has its say before the report.
    let report = printed.find('{').map_or("", |at| &printed[at..]);
    let report: serde_json::Value = serde_json::from_str(report)
        .with_context(|| format!("{} printed {printed}", process::line(&command)))?;
    let rate = |side: &str| report["jobs"][0][side]["iops"].as_f64().unwrap_or(0.0);
    let rate = rate("read") + rate("write");
    if !rate.is_normal() || report["jobs"][0]["error"] != 0 {
        bail!("{} did nothing: {report}", process::line(&command));
    }
    Ok(Duration::from_secs_f64(1.0 / rate))
}
