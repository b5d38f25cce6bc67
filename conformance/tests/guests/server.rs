//! A `qed` that serves the image of a lab, and how a guest gets at it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::lab::{Lab, PATIENCE};

/// How guests get at a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Nbd,
    Vhost,
}

impl Way {
    /// QEMU's words for a disk at the socket of a server, which may go away and come back.
    pub(crate) fn disk(self, lab: &Lab, socket: &str) -> Vec<String> {
        let socket = lab.path(socket);
        let (back, front) = match self {
            Self::Nbd => (
                format!(
                    "driver=nbd,node-name=disk,server.type=unix,server.path={},reconnect-delay=60,\
                     discard=unmap",
                    socket.display()
                ),
                "virtio-blk-pci,drive=disk",
            ),
            Self::Vhost => (
                format!("socket,id=disk,path={},reconnect-ms=10", socket.display()),
                "vhost-user-blk-pci,chardev=disk",
            ),
        };
        let option = if self == Self::Nbd { "-blockdev" } else { "-chardev" };
        [option, &back, "-device", front].map(str::to_owned).to_vec()
    }

    fn command(self) -> &'static str {
        match self {
            Self::Nbd => "serve",
            Self::Vhost => "vhost",
        }
    }
}

/// A server that listens. It ends with the value.
pub(crate) struct Server {
    child: Child,
    control: PathBuf,
    said: PathBuf,
}

impl Server {
    /// Serves `disk.qed` at a socket, and answers at another.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, way: Way, socket: &str, more: &[&str]) -> Self {
        let (name, said) = (format!("{socket}.control"), lab.path(&format!("{socket}.said")));
        let mut command = lab.command([way.command(), "--socket", socket, "--control", &name]);
        command.args(["--discard", "pass-down"]).args(more).args(["-f", "qed", "disk.qed"]);
        command.stderr(File::options().append(true).create(true).open(&said).unwrap());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let server = Self { child, control: lab.path(&name), said };
        assert!(!line.is_empty(), "it does not listen: {}", server.said());
        server
    }

    /// Asks at the control socket, and it has to be done.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str) -> Value {
        let answer = self.answer(command);
        assert_eq!(answer["ok"], true, "{command}: {answer} {}", self.said());
        answer
    }

    /// Asks at the control socket for what must not be done.
    #[track_caller]
    pub(crate) fn refuses(&self, command: &str) {
        let answer = self.answer(command);
        assert_eq!(answer["ok"], false, "{command}: {answer}");
    }

    fn answer(&self, command: &str) -> Value {
        let mut stream = BufReader::new(UnixStream::connect(&self.control).unwrap());
        stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream.get_mut(), "{{\"cmd\":\"{command}\"}}").unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it, which has to go well.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        let kill = Command::new("sh").args(["-c", "kill -s TERM $0", &id]).status().unwrap();
        assert!(kill.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.said());
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }
}

/// A test that failed leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
