//! A server that is started for one image and stopped after it.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::answer::{Answer, Case, DriveError, Opened};
use crate::limited::{self, Limits};

/// A running server; it is killed when this is dropped.
pub(super) struct Server {
    child: Child,
    stderr: PathBuf,
    scratch: PathBuf,
}

impl Server {
    /// Starts the command in the scratch folder of the image.
    pub(super) fn start(
        words: &[String],
        limits: Limits,
        case: &Case<'_>,
    ) -> Result<Self, DriveError> {
        let stderr = case.scratch.join("server");
        let guard = limited::guard(limits);
        let (program, guard) = guard.split_first().expect("it begins with prlimit");
        let child = Command::new(program)
            .args(guard)
            .args(words.iter().map(|word| fill(word, case)))
            .current_dir(case.scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr)?)
            .spawn()
            .map_err(|error| limited::missing("prlimit", "util-linux", &error))?;
        Ok(Self { child, stderr, scratch: case.scratch.to_owned() })
    }

    /// What the end of the server says about the image; none while it runs.
    pub(super) fn ended(&mut self) -> Result<Option<Answer<Opened>>, DriveError> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        let said = String::from_utf8_lossy(&fs::read(&self.stderr)?).into_owned();
        let said = limited::first_line(&said, &self.scratch);
        Ok(Some(match status.signal() {
            Some(signal) => Answer::Broke(format!("the server was ended by signal {signal}")),
            None if status.success() => Answer::Broke("the server ended".to_owned()),
            None => Answer::Said(Opened::Refused { clauses: None, said }),
        }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and that is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A template with what it stands for.
pub(super) fn fill(template: &str, case: &Case<'_>) -> String {
    let socket = case.scratch.join("socket");
    template
        .replace("{name}", &case.vector.name)
        .replace("{path}", &case.image.display().to_string())
        .replace("{socket}", &socket.display().to_string())
}
