//! The control socket: requests about the service itself, a line of JSON each, from the user that runs
//! it. `docs/control.md` has the protocol.

mod answer;
mod perform;
mod request;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::acceptor::{AcceptLimits, Acceptor, Clients};
use super::contained::contained;
use super::protocol::{ProtocolError, ProtocolServer, ServerHandle};
use super::registry::Registry;
use super::socket::Socket;
use answer::refusal;
pub(super) use perform::Controlled;
use request::{Command, MAX_LINE_BYTES, Request};

/// Who manages a service is one or a few.
pub(super) const LIMITS: AcceptLimits =
    AcceptLimits { connections: 8, handshake: Duration::from_secs(10), once: false };

/// Answers requests about a service.
#[derive(Debug)]
pub(super) struct ControlServer {
    pub(super) acceptor: Acceptor,
    pub(super) controlled: Controlled,
}

impl ProtocolServer for ControlServer {
    fn name(&self) -> &'static str {
        "control"
    }

    fn handle(&self) -> Arc<dyn ServerHandle> {
        self.acceptor.handle()
    }

    fn run(self: Box<Self>) -> Result<(), ProtocolError> {
        Ok(self.acceptor.run(&Registry::default(), &self.controlled)?)
    }
}

impl Clients for Controlled {
    const THREAD: &'static str = "control-client";

    fn serve(&self, socket: &Arc<Socket>, number: u64) {
        let client = tracing::info_span!("control", number);
        let _inside = client.enter();
        if let Err(error) = converse(self, socket) {
            tracing::debug!(%error, "gone");
        }
    }
}

/// Answers one request after the other until the client leaves or says what cannot be answered.
fn converse(controlled: &Controlled, socket: &Socket) -> io::Result<()> {
    // From here on the client may be silent.
    socket.end_negotiation()?;
    let mut reader = BufReader::new(socket);
    while let Some(line) = next_line(&mut reader)? {
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong => {
                let text = format!("a request has more than {MAX_LINE_BYTES} bytes");
                return send(socket, &refusal(&text));
            }
        };
        let request = Request::parse(&line);
        let answer = match &request {
            Ok(request) => contained(|| controlled.perform(request))
                .unwrap_or_else(|panicked| refusal(&panicked.to_string())),
            Err(error) => refusal(&error.to_string()),
        };
        let sent = send(socket, &answer);
        // Only now, so that the answer arrives; and also for one that does not wait for it.
        if request.is_ok_and(|request| request.command == Command::Quit) {
            controlled.quit();
        }
        sent?;
    }
    Ok(())
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// The next line without its end; none when the client has left, be it in the middle of one.
fn next_line(reader: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let most = MAX_LINE_BYTES as u64 + 1;
    reader.by_ref().take(most).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(Some(Line::Whole(line))),
        Some(_) if line.len() >= MAX_LINE_BYTES => Ok(Some(Line::TooLong)),
        _ => Ok(None),
    }
}

/// Sends a line. A client that does not take it holds up itself alone, until the service ends.
fn send(socket: &Socket, answer: &Value) -> io::Result<()> {
    let line = format!("{answer}\n");
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match { socket }.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_as_long_as_they_may_be() {
        let longest = vec![b'x'; MAX_LINE_BYTES];
        let told = |mut bytes: &[u8]| match next_line(&mut bytes).expect("it is there") {
            None => "the end",
            Some(Line::Whole(line)) if line == longest => "the longest",
            Some(Line::Whole(line)) if line.is_empty() => "an empty one",
            Some(Line::Whole(_)) => "a line",
            Some(Line::TooLong) => "too long",
        };
        let with = |tail: &[u8]| [&longest[..], tail].concat();
        let table: [(&[u8], _); 7] = [
            (b"", "the end"),
            (b"\n", "an empty one"),
            (b"ab\ncd\n", "a line"),
            (b"ab", "the end"),
            (&with(b"\n"), "the longest"),
            (&with(b"x\n"), "too long"),
            (&with(b"x"), "too long"),
        ];
        for (bytes, want) in table {
            assert_eq!(told(bytes), want, "{} bytes", bytes.len());
        }
    }
}
