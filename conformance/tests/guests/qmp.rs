//! QEMU's monitor: commands and what they answer, as JSON lines.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::lab::PATIENCE;

/// A connection to the monitor of one QEMU.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
    /// Events that came before the answer to a command.
    events: Vec<Value>,
}

impl Qmp {
    /// Connects to a QEMU that may still be starting.
    pub(crate) fn connect(socket: &Path) -> Self {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{}: {error}", socket.display()),
            }
            thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        qmp.message();
        qmp.run("qmp_capabilities", json!({}));
        qmp
    }

    /// Runs a command, which has to succeed.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}").unwrap();
        loop {
            let mut message = self.message();
            if message.get("event").is_some() {
                self.events.push(message);
                continue;
            }
            assert!(message.get("error").is_none(), "{command}: {message}");
            return message["return"].take();
        }
    }

    /// Waits until an event comes that is as asked; a migration must not fail meanwhile.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) {
        while !self.events.drain(..).any(|event| is_it(&event)) {
            let message = self.message();
            assert_ne!(message["data"]["status"], "failed", "{message}");
            self.events.push(message);
        }
    }

    fn message(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("QEMU answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }
}
