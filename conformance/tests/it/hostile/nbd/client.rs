//! The words of a client, right or wrong, and what it hears. Shares no code with the server.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(super) const EXPORT_NAME: u32 = 1;
pub(super) const LIST: u32 = 3;
pub(super) const STARTTLS: u32 = 5;
pub(super) const INFO: u32 = 6;
pub(super) const GO: u32 = 7;
pub(super) const STRUCTURED: u32 = 8;
pub(super) const SET_META: u32 = 10;
pub(super) const EXTENDED: u32 = 11;

pub(super) const ACK: u32 = 1;
pub(super) const UNSUPPORTED: u32 = 0x8000_0001;
pub(super) const INVALID: u32 = 0x8000_0003;
pub(super) const TLS_REQUIRED: u32 = 0x8000_0005;
pub(super) const TOO_BIG: u32 = 0x8000_0009;

pub(super) const READ: u16 = 0;
pub(super) const WRITE: u16 = 1;
pub(super) const FLUSH: u16 = 3;
pub(super) const TRIM: u16 = 4;
pub(super) const CACHE: u16 = 5;
pub(super) const ZEROES: u16 = 6;
pub(super) const STATUS: u16 = 7;

pub(super) const EPERM: u32 = 1;
pub(super) const EINVAL: u32 = 22;
pub(super) const ENOSPC: u32 = 28;

/// One connection. What cannot be sent because the server has hung up is no failure: that it has is
/// what it tells when it is listened to.
pub(super) struct Client(pub(super) UnixStream);

impl Client {
    /// Sends bytes; whether the server still took them.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// The next bytes; none if the server hangs up before.
    pub(super) fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    /// Some of the next bytes; 0 when the server has hung up.
    pub(super) fn hear(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(to) {
                // As it is when the machine was stopped for a while.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(0),
                heard => return heard,
            }
        }
    }

    /// Asks for the disk and passes over what is told of it.
    #[track_caller]
    pub(super) fn go(&mut self) {
        self.send(&option(GO, &[0; 6]));
        assert_eq!(self.option_reply(GO), ACK);
    }

    /// The last reply to an option.
    #[track_caller]
    pub(super) fn option_reply(&mut self, of: u32) -> u32 {
        loop {
            let head = self.take(20).expect("a reply to an option");
            assert_eq!(
                head[..12],
                [&0x3_e889_0455_65a9_u64.to_be_bytes()[..], &of.to_be_bytes()].concat()
            );
            let (kind, len) = (number(&head[12..16]), number(&head[16..]));
            self.take(len as usize).expect("all of the reply");
            if kind == ACK || kind >= 1 << 31 {
                return kind;
            }
        }
    }

    /// The error of the next simple reply.
    #[track_caller]
    pub(super) fn simple(&mut self) -> u32 {
        let reply = self.take(16).expect("a reply");
        assert_eq!(number(&reply[..4]), 0x6744_6698, "the magic of a simple reply");
        number(&reply[4..8])
    }

    /// The server hangs up, having said nothing more.
    #[track_caller]
    pub(super) fn is_hung_up_on(&mut self) {
        let mut said = Vec::new();
        // A reset says the same; silence would be another error.
        if let Err(error) = self.0.read_to_end(&mut said) {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "the server waits");
        }
        assert_eq!(said, b"", "the server goes on");
    }

    /// How long it takes until the server hangs up, whatever it says before.
    pub(super) fn until_hung_up_on(&mut self, start: Instant) -> Duration {
        // A reset says the same.
        drop(self.0.read_to_end(&mut Vec::new()));
        start.elapsed()
    }
}

/// An option.
pub(super) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("short");
    [&option_header(number, len)[..], data].concat()
}

/// The header of an option, whose data may never come.
pub(super) fn option_header(number: u32, len: u32) -> Vec<u8> {
    [&b"IHAVEOPT"[..], &number.to_be_bytes(), &len.to_be_bytes()].concat()
}

/// A string behind its length.
pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("short");
    [&len.to_be_bytes(), bytes].concat()
}

/// The header of a request.
pub(super) fn request(flags: u16, command: u16, at: u64, len: u32) -> Vec<u8> {
    [&head(0x2560_9513, flags, command, at)[..], &len.to_be_bytes()].concat()
}

/// The header of a request with a long length.
pub(super) fn extended(flags: u16, command: u16, at: u64, len: u64) -> Vec<u8> {
    [&head(0x21e4_1c71, flags, command, at)[..], &len.to_be_bytes()].concat()
}

fn head(magic: u32, flags: u16, command: u16, at: u64) -> Vec<u8> {
    let cookie = 0x77_u64.to_be_bytes();
    let words = [&magic.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes()];
    [&words.concat()[..], &cookie, &at.to_be_bytes()].concat()
}

pub(super) fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}
