//! The servers that are timed, ours and QEMU's, with the disks that they serve. Knows no protocol.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Bytes of every disk.
pub(crate) const DISK: u64 = 1 << 30;
/// A server that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who serves, and from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// `qed` with a QED image.
    Ours,
    /// `qed` with a raw image.
    OursRaw,
    /// qemu-storage-daemon with a raw image.
    QemuRaw,
    /// The same with a QED image.
    QemuQed,
}

/// How a disk is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    VhostUser { queues: usize },
    Fuse,
}

/// What is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Data everywhere, in the page cache.
    Full,
    /// Nothing.
    Fresh,
}

/// How a server's file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    PageCache,
    Direct,
}

impl Who {
    fn format(self) -> &'static str {
        match self {
            Self::Ours | Self::QemuQed => "qed",
            Self::OursRaw | Self::QemuRaw => "raw",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursRaw)
    }
}

/// A server that listens, or has mounted.
pub(crate) struct Server {
    child: Child,
    /// What clients connect to, or open.
    pub(crate) place: PathBuf,
    protocol: Protocol,
}

impl Server {
    /// Starts one with the files in `dir`.
    pub(crate) fn start(
        dir: &Path,
        who: Who,
        protocol: Protocol,
        content: Content,
        cache: Cache,
    ) -> Self {
        let image = image(dir, who, content);
        let place = match protocol {
            Protocol::VhostUser { .. } => dir.join("served-bench.sock"),
            Protocol::Fuse => dir.join("served-bench.disk"),
        };
        let _ = fs::remove_file(&place);
        if protocol == Protocol::Fuse {
            File::create(&place).unwrap();
        }
        let mut command = if who.is_ours() {
            ours(&image, who, protocol, cache, &place)
        } else {
            qemu(&image, who, protocol, cache, &place)
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { child, place, protocol };
        server.wait_until_ready(&command);
        server
    }

    /// Bytes of memory that the server has in use.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    fn wait_until_ready(&mut self, command: &Command) {
        let start = Instant::now();
        let is_ready = |server: &Self| match server.protocol {
            Protocol::VhostUser { .. } => server.place.exists(),
            Protocol::Fuse => fs::metadata(&server.place).is_ok_and(|found| found.len() == DISK),
        };
        while !is_ready(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{command:?} ended with {status}");
            }
            assert!(start.elapsed() < PATIENCE, "{command:?} does not serve");
            sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.protocol == Protocol::Fuse {
            // Unmounts first where the server would leave the mount behind.
            let _ =
                Command::new("umount").arg("-l").arg(&self.place).stderr(Stdio::null()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.place);
    }
}

fn ours(image: &Path, who: Who, protocol: Protocol, cache: Cache, place: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qed"));
    match protocol {
        Protocol::VhostUser { queues } => {
            command.arg("vhost").args(["--queues", &queues.to_string(), "--socket"]).arg(place);
        }
        Protocol::Fuse => {
            command.arg("mount");
        }
    }
    command.args(["-f", who.format()]);
    if cache == Cache::Direct {
        command.args(["-t", "none"]);
    }
    command.arg(image);
    if protocol == Protocol::Fuse {
        command.arg(place);
    }
    command
}

fn qemu(image: &Path, who: Who, protocol: Protocol, cache: Cache, place: &Path) -> Command {
    let mut command = Command::new("qemu-storage-daemon");
    let direct = if cache == Cache::Direct { "on,aio=io_uring" } else { "off" };
    command.arg("--blockdev").arg(format!(
        "driver=file,node-name=file,filename={},cache.direct={direct}",
        image.display()
    ));
    command.arg("--blockdev").arg(format!(
        "driver={},node-name=disk,file=file,cache.direct={}",
        who.format(),
        if cache == Cache::Direct { "on" } else { "off" },
    ));
    let place = place.display();
    let export = match protocol {
        Protocol::VhostUser { queues } => format!(
            "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={place},\
             writable=on,num-queues={queues}"
        ),
        Protocol::Fuse => {
            format!("type=fuse,id=export,node-name=disk,mountpoint={place},writable=on")
        }
    };
    command.arg("--export").arg(export);
    command
}

/// The image that is served: made anew if it has to be empty, in the page cache if it is full.
fn image(dir: &Path, who: Who, content: Content) -> PathBuf {
    let full = dir.join(format!("served-bench.full.{}", who.format()));
    let (path, is_there) = match content {
        Content::Full => (full.clone(), full.exists()),
        Content::Fresh => (dir.join(format!("served-bench.fresh.{}", who.format())), false),
    };
    if !is_there {
        create(&path, who);
        if content == Content::Full {
            fill(&path, who);
        }
    }
    if content == Content::Full {
        std::io::copy(&mut File::open(&path).unwrap(), &mut std::io::sink()).unwrap();
    }
    // What is still to be written out must not be written while a server is timed.
    File::open(&path).unwrap().sync_all().unwrap();
    path
}

fn create(path: &Path, who: Who) {
    let _ = fs::remove_file(path);
    match who.format() {
        "raw" => File::create(path).unwrap().set_len(DISK).unwrap(),
        format => {
            let mut create = Command::new(env!("CARGO_BIN_EXE_qed"));
            create.args(["create", "-q", "-f", format]).arg(path).arg(DISK.to_string());
            assert!(create.status().unwrap().success(), "{create:?}");
        }
    }
}

/// Writes every byte of the disk.
fn fill(path: &Path, who: Who) {
    let data = vec![7; 1 << 20];
    if who.format() == "raw" {
        let file = File::options().write(true).open(path).unwrap();
        (0..DISK >> 20).for_each(|mib| file.write_all_at(&data, mib << 20).unwrap());
        return;
    }
    let image = qed::Image::options().recover().open(path).unwrap();
    (0..DISK >> 20).for_each(|mib| image.write_at(&data, mib << 20).unwrap());
    image.close().unwrap();
}

/// Removes the disks.
pub(crate) fn clean(dir: &Path) {
    for name in ["full.raw", "full.qed", "fresh.raw", "fresh.qed"] {
        // Not every case made each.
        let _ = fs::remove_file(dir.join(format!("served-bench.{name}")));
    }
}
