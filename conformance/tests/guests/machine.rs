//! One running QEMU with a guest, and what is said between the guest and the test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::initramfs::pack;
use crate::lab::{Lab, PATIENCE, kernel_folder};
use crate::qmp::Qmp;

/// Nothing but what is named, so that two of them are alike enough to migrate.
const MACHINE: &str = "-nodefaults -no-user-config -M q35,memory-backend=mem -accel tcg -cpu max \
    -display none -object memory-backend-memfd,id=mem,size=128M,share=on -m 128M \
    -device virtio-serial-pci -chardev stdio,id=port,signal=off \
    -device virtserialport,chardev=port,name=port";

/// What a guest is started with.
#[derive(Clone)]
pub(crate) struct Plan {
    /// The shell script that it runs.
    pub(crate) job: String,
    /// Programs of this machine that the script calls.
    pub(crate) programs: Vec<PathBuf>,
    /// QEMU's words for its disk.
    pub(crate) disk: Vec<String>,
    /// Whether it may start anew, or ends where it would, as after a panic.
    pub(crate) reboots: bool,
}

/// A QEMU. It ends with the value.
pub(crate) struct Machine {
    child: Child,
    lines: Receiver<String>,
    console: PathBuf,
    qmp: PathBuf,
}

impl Machine {
    /// Starts a guest; `name` is that of its files in the lab.
    pub(crate) fn start(lab: &Lab, name: &str, plan: &Plan, more: &[&str]) -> Self {
        let file = |what: &str| lab.path(&format!("{name}.{what}"));
        let initramfs = file("initramfs");
        let programs: Vec<&Path> = plan.programs.iter().map(PathBuf::as_path).collect();
        pack(&initramfs, &programs, &plan.job);
        let (console, qmp) = (file("console"), file("qmp"));
        let mut command = Command::new("qemu-system-x86_64");
        command.args(MACHINE.split_whitespace()).args(&plan.disk).args(more);
        command.arg("-kernel").arg(kernel_folder().join("vmlinuz")).arg("-initrd").arg(initramfs);
        command.args(["-append", "console=ttyS0 loglevel=4 panic=-1 no_timer_check"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", qmp.display()));
        if !plan.reboots {
            command.arg("-no-reboot");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        // Ends with QEMU's output, or when nobody listens.
        thread::spawn(move || {
            said.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, console, qmp }
    }

    /// The next line that the guest says.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!("the guest says nothing ({error}); its console:\n{}", self.console())
        });
        assert_ne!(line, "failed", "its console:\n{}", self.console());
        line
    }

    /// Says a line to the guest.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// QEMU's monitor.
    pub(crate) fn monitor(&self) -> Qmp {
        Qmp::connect(&self.qmp)
    }

    /// Waits until the guest has powered off; the lines that nobody has read. The kernel must not have
    /// complained.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Vec<String> {
        let rest: Vec<String> = self.lines.iter().collect();
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut said).unwrap();
        let console = self.console();
        assert!(status.success(), "QEMU failed: {said}\n{console}");
        self.is_quiet();
        rest
    }

    /// Ends QEMU at once; the lines that nobody has read.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.is_quiet();
        self.lines.iter().collect()
    }

    /// The guest's kernel has not complained of its disk.
    #[track_caller]
    fn is_quiet(&self) {
        let console = self.console();
        for complaint in ["error", "corrupt", "Call Trace", "blocked for more than"] {
            assert!(!console.contains(complaint), "{complaint}:\n{console}");
        }
    }

    /// What its kernel said.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }
}

/// A test that failed leaves no guest behind.
impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
