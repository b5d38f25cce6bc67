//! A `qed serve` that a case may do anything to, and a client that behaves.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::{Client, READ, request};
use crate::support::Folder;
use crate::support::QED;

/// Bytes of the disk.
pub(super) const DISK: u64 = 1 << 40;
/// Far longer than anything takes that is not said to take time.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server waits for requests that are under way.
const DRAIN: Duration = Duration::from_secs(30);

/// What it may say of its clients, who must not be able to fill a disk with that.
const SAID_MAX: usize = 4096;

pub(super) struct Server {
    pub(super) folder: Folder,
    child: Child,
}

impl Server {
    /// Serves a new disk of 1 TiB.
    pub(super) fn start(args: &str) -> Self {
        let folder = Folder::new();
        let create = ["create", "-q", "-f", "qed", "disk"];
        let size = DISK.to_string();
        let created =
            Command::new(&*QED).args(create).arg(size).current_dir(folder.path()).status();
        assert!(created.expect("it starts").success());
        if args.contains("--tls-cert") {
            make_certificate(&folder);
        }
        let mut command = Command::new(&*QED);
        command.args(["serve", "--socket", "s", "--metrics", "./m"]).args(args.split(' '));
        command.arg("disk").current_dir(folder.path()).stdin(Stdio::null());
        // A file, which takes whatever it says.
        let said = fs::File::create(folder.file("said")).expect("a file");
        command.stdout(Stdio::piped()).stderr(said);
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(line.starts_with("nbd"), "it does not listen: {line}");
        Self { folder, child }
    }

    /// A client that has heard the greeting; none if it was turned away.
    pub(super) fn greeted(&self) -> Option<Client> {
        let mut client = self.connect("s");
        client.take(18).map(|_| client)
    }

    /// A client that has said hello and may send options.
    #[track_caller]
    pub(super) fn hello(&self) -> Client {
        let mut client = self.greeted().expect("a greeting");
        client.send(&[0, 0, 0, 3]);
        client
    }

    /// A client that has its disk.
    #[track_caller]
    pub(super) fn transmitting(&self) -> Client {
        let mut client = self.hello();
        client.go();
        client
    }

    /// A connection to one of the two sockets.
    pub(super) fn connect(&self, socket: &str) -> Client {
        let stream = UnixStream::connect(self.folder.file(socket)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time");
        Client(stream)
    }

    /// Somebody else reads from the disk.
    #[track_caller]
    pub(super) fn serves(&self) {
        let start = Instant::now();
        // Where there were too many, a place is free when the server has seen that they are gone.
        while self.greeted().is_none() {
            assert!(start.elapsed() < PATIENCE, "nobody gets in");
        }
        if self.folder.file("cert.pem").exists() {
            return;
        }
        let mut client = self.transmitting();
        client.send(&request(0, READ, DISK - 512, 512));
        assert_eq!((client.simple(), client.take(512)), (0, Some(vec![0; 512])));
    }

    /// The most memory that it ever had.
    pub(super) fn peak_kib(&self) -> u64 {
        self.kib("VmHWM:")
    }

    /// The memory that it has.
    pub(super) fn memory_kib(&self) -> u64 {
        self.kib("VmRSS:")
    }

    /// How many descriptors it has.
    pub(super) fn descriptors(&self) -> usize {
        fs::read_dir(self.process("fd")).expect("alive").count()
    }

    /// Bytes of the image file.
    pub(super) fn file_len(&self) -> u64 {
        fs::metadata(self.folder.file("disk")).expect("a file").len()
    }

    /// Ends it by a signal: in order, with a sound image and without a socket.
    pub(super) fn end(mut self) {
        let start = Instant::now();
        let id = self.child.id().to_string();
        let killed = Command::new("sh").args(["-c", "kill -s TERM $0", &id]).status();
        assert!(killed.expect("sh").success());
        let code = self.child.wait().expect("ended").code();
        let said = fs::read_to_string(self.folder.file("said")).expect("text");
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("panicked") && said.len() < SAID_MAX, "{said}");
        assert!(start.elapsed() < DRAIN, "somebody held it up");
        assert!(!self.folder.file("s").exists(), "its socket is left");
        let mut check = Command::new(&*QED);
        check.args(["check", "-q", "-f", "qed", "disk"]).current_dir(self.folder.path());
        let checked = check.status().expect("it starts");
        assert_eq!(checked.code(), Some(0), "the image is not sound");
    }

    fn kib(&self, what: &str) -> u64 {
        let status = fs::read_to_string(self.process("status")).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn process(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.child.id()))
    }
}

/// A case that failed leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A key and a certificate for it, in `key.pem` and `cert.pem`.
fn make_certificate(folder: &Folder) {
    let script = "set -e; certtool --generate-privkey --rsa --bits 2048 --outfile key.pem
        printf 'cn = localhost\\ntls_www_server\\nexpiration_days = 30\\n' > info
        certtool --generate-self-signed --load-privkey key.pem --template info --outfile cert.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(folder.path()).output();
    let made = made.expect("sh");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}: is the Debian package gnutls-bin installed?");
}
