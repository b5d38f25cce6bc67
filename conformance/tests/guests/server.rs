//! A `qed` that serves the image of a lab, and how a guest gets at it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::lab::Lab;

/// A server that listens. It ends with the value.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Serves `disk.qed` at the socket `name`.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, name: &str, more: &[&str]) -> Self {
        let mut command = lab.command(["serve", "--socket", name, "--discard", "pass-down"]);
        command.args(more).args(["-f", "qed", "disk.qed"]);
        let said = lab.path(&format!("{name}.said"));
        command.stderr(File::options().append(true).create(true).open(&said).unwrap());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = || std::fs::read_to_string(&said).unwrap();
        assert!(line.starts_with("nbd"), "it does not listen: {line}{}", said());
        Self { child }
    }

    /// QEMU's words for a disk at the socket of a server, which may go away and come back.
    pub(crate) fn disk(lab: &Lab, name: &str) -> Vec<String> {
        let socket = lab.path(name);
        let blockdev = format!(
            "driver=nbd,node-name=disk,server.type=unix,server.path={},reconnect-delay=60,discard=unmap",
            socket.display()
        );
        let words = ["-blockdev", &blockdev, "-device", "virtio-blk-pci,drive=disk"];
        words.map(str::to_owned).to_vec()
    }

    /// Ends it, which has to go well.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("sh").args(["-c", "kill -s TERM $0", &id]).status().unwrap().success()
        );
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

/// A test that failed leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
