//! The process that started this one, which a server may end with. Knows no server.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open};

/// The process that started this one. A signal at its death (`PR_SET_PDEATHSIG`) would be one at the
/// end of the thread that started this one, which may come earlier.
#[derive(Debug)]
pub(super) struct Parent {
    /// None if it has ended.
    process: Option<OwnedFd>,
}

impl Parent {
    /// Finds it; none where it is in no namespace that this process sees.
    pub(super) fn find() -> io::Result<Option<Self>> {
        let Some(parent) = getppid() else { return Ok(None) };
        let process = match pidfd_open(parent, PidfdFlags::empty()) {
            // By now the number may be another's: it is not if it still is that of the parent.
            Ok(process) if getppid() == Some(parent) && is_first(parent) => Some(process),
            Ok(_) | Err(Errno::SRCH) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Self { process }))
    }

    /// Waits until it has ended.
    pub(super) fn wait(&self) -> io::Result<()> {
        if let Some(process) = &self.process {
            retry_on_intr(|| poll(&mut [PollFd::new(process, PollFlags::IN)], None))?;
        }
        Ok(())
    }
}

/// Whether this process was started by `parent`, and not given to it when the one that started it had
/// ended. A process is born into the session of the one that starts it: where the two have different
/// ones, and this process did not begin its own, there was another.
fn is_first(parent: Pid) -> bool {
    let numbers = [getpid(), parent].map(Pid::as_raw_pid);
    match (Stat::read("self"), Stat::read(&numbers[1].to_string())) {
        // Else it is about other processes: of another namespace, or of none that may be asked.
        (Some(own), Some(its)) if [own.process, own.parent] == numbers => {
            own.session == its.session || own.session == own.process
        }
        _ => true,
    }
}

/// Some of what `/proc` says of a process.
struct Stat {
    process: i32,
    parent: i32,
    session: i32,
}

impl Stat {
    fn read(process: &str) -> Option<Self> {
        let text = fs::read(format!("/proc/{process}/stat")).ok()?;
        // The number, then the name, which may hold anything, then state, parent, group and session.
        let (before, rest) = text.split_at(text.iter().position(|byte| *byte == b'(')?);
        let behind = rest.rsplit(|byte| *byte == b')').next()?;
        let mut numbers = str::from_utf8(behind).ok()?.split_ascii_whitespace().skip(1);
        let mut number = || numbers.next()?.parse().ok();
        let process = str::from_utf8(before).ok()?.trim_end().parse().ok()?;
        let (parent, _group, session) = (number()?, number()?, number()?);
        Some(Self { process, parent, session })
    }
}
