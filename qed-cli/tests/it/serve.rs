//! `serve`: real clients against the program, and how it begins and ends.

mod activation;
mod clients;
mod control;
mod ending;
mod hand_over;
mod killed;
mod protocols;
mod soak;
mod sockets;
mod space;
mod tls;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::lab::{Lab, Ran, shell};

/// A program, and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("nbdinfo", "libnbd-bin"),
    ("nbdcopy", "libnbd-bin"),
    ("fio", "fio"),
    ("certtool", "gnutls-bin"),
];
/// Debian's own, which finds Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

/// A server that listens.
pub(crate) struct Served {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// The addresses that it printed.
    pub(crate) uris: Vec<String>,
}

impl Served {
    /// Starts a server of as many exports as it will print addresses of.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, args: &str, addresses: usize) -> Self {
        Self::of(lab.command(["serve"]).args(args.split(' ')), addresses)
    }

    #[track_caller]
    pub(crate) fn of(command: &mut Command, addresses: usize) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut uris = Vec::new();
        for _ in 0..addresses {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            uris.push(line.trim_end().to_owned());
        }
        let mut served = Self { child, stdout, uris };
        if served.uris.contains(&String::new()) {
            let ran = served.wait();
            panic!("it did not listen: {ran:?}");
        }
        served
    }

    /// The next line of standard output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        line
    }

    /// The next line of standard error.
    pub(crate) fn error_line(&mut self) -> String {
        let stderr = self.child.stderr.as_mut().expect("piped");
        let mut line = String::new();
        // Nothing behind the line is taken.
        let mut byte = [0];
        while std::io::Read::read(stderr, &mut byte).expect("a line") == 1 && byte != *b"\n" {
            line.push(char::from(byte[0]));
        }
        line
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uris[0]
    }

    pub(crate) fn port(&self) -> &str {
        let (_, port) = self.uri().rsplit_once(':').expect("an address");
        port.trim_end_matches('/')
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s $0 $1", name, &self.child.id().to_string()]);
        assert_eq!(Ran::of(&mut kill).code, Some(0));
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> Ran {
        let mut printed = String::new();
        std::io::Read::read_to_string(&mut self.stdout, &mut printed).expect("read");
        let mut said = Vec::new();
        let stderr = self.child.stderr.as_mut().expect("piped");
        std::io::Read::read_to_end(stderr, &mut said).expect("read");
        let code = self.child.wait().expect("ended").code();
        Ran { code, stdout: printed, stderr: String::from_utf8_lossy(&said).into_owned() }
    }

    /// Ends it, which has to go well.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let ran = self.wait();
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    }
}

/// A test that failed leaves no server behind.
impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a shell script with clients in the lab, which has to succeed; what it printed.
#[track_caller]
pub(crate) fn clients(lab: &Lab, script: &str) -> String {
    let ran = run_clients(lab, script);
    assert_eq!(ran.code, Some(0), "{script}: {}{}", ran.stdout, ran.stderr);
    ran.stdout
}

pub(crate) fn run_clients(lab: &Lab, script: &str) -> Ran {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (tool, package) in TOOLS {
        let found = std::env::split_paths(&path).any(|folder| folder.join(tool).exists());
        assert!(found, "{tool} is missing: install the Debian package {package}");
    }
    shell(&lab.path(""), script, &[])
}

/// Runs a Python script of libnbd, with `uri` and the handle `h` that is not connected yet.
#[track_caller]
pub(crate) fn python(lab: &Lab, uri: &str, script: &str) {
    assert!(Path::new(PYTHON).exists(), "{PYTHON} is missing: install the Debian package python3");
    let start = "import sys, nbd, errno\nuri = sys.argv[1]\nh = nbd.NBD()\n";
    let mut command = Command::new(PYTHON);
    command.args(["-c", &format!("{start}{script}"), uri]).current_dir(lab.path(""));
    let ran = Ran::of(command.stdin(Stdio::null()));
    let hint = "without the module nbd: install the Debian package python3-libnbd";
    assert_eq!(ran.code, Some(0), "{}{} ({hint})", ran.stdout, ran.stderr);
}
