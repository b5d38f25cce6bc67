//! The bytes of one connection in either direction, in the clear or under TLS.

use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::tls::{TlsIdentity, TlsStream};
use crate::server::Socket;

/// Parts that are handed to the system at once.
const PARTS_AT_ONCE: usize = 16;

/// One connection. One thread reads at a time; replies of several are sent whole.
#[derive(Debug)]
pub(super) struct Transport {
    channel: Channel,
    sending: Mutex<()>,
}

#[derive(Debug)]
enum Channel {
    Plain(Arc<Socket>),
    Tls(Box<TlsStream>),
}

impl Transport {
    pub(super) fn plain(socket: Arc<Socket>) -> Self {
        Self { channel: Channel::Plain(socket), sending: Mutex::new(()) }
    }

    /// The same connection under TLS, whose handshake is done here.
    pub(super) fn encrypt(self, identity: &TlsIdentity) -> io::Result<Self> {
        match self.channel {
            Channel::Plain(socket) => {
                let stream = Box::new(TlsStream::accept(socket, identity)?);
                Ok(Self { channel: Channel::Tls(stream), sending: self.sending })
            }
            Channel::Tls(_) => Err(io::Error::other("TLS is on already")),
        }
    }

    /// Sends the parts of some replies, with none of another between them. Calls `stalled` once it
    /// has to wait, for another reply or for the client, and goes on.
    pub(super) fn send<'a>(
        &self,
        mut parts: impl Iterator<Item = IoSlice<'a>>,
        stalled: impl FnOnce(),
    ) -> io::Result<()> {
        let mut stalled = Some(stalled);
        let mut stall = || stalled.take().into_iter().for_each(|stalled| stalled());
        let _turn = self.sending.try_lock().unwrap_or_else(|_| {
            stall();
            self.sending.lock().unwrap_or_else(PoisonError::into_inner)
        });
        loop {
            let mut group = [IoSlice::new(&[]); PARTS_AT_ONCE];
            let mut count = 0;
            for (slot, part) in group.iter_mut().zip(parts.by_ref()) {
                *slot = part;
                count += 1;
            }
            self.write_group(&mut group[..count], &mut stall)?;
            if count < PARTS_AT_ONCE {
                return again(|| { self }.flush(), &mut stall);
            }
        }
    }

    fn write_group(
        &self,
        mut parts: &mut [IoSlice<'_>],
        stall: &mut impl FnMut(),
    ) -> io::Result<()> {
        while !parts.is_empty() {
            match again(|| { self }.write_vectored(parts), stall)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut parts, written),
            }
        }
        Ok(())
    }
}

/// Tries until it fails for another reason than that it has to wait.
fn again<T>(mut attempt: impl FnMut() -> io::Result<T>, stall: &mut impl FnMut()) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stall(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}

impl Read for &Transport {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.channel {
            Channel::Plain(socket) => { &**socket }.read(buf),
            Channel::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for &Transport {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.channel {
            Channel::Plain(socket) => { &**socket }.write_vectored(bufs),
            Channel::Tls(stream) => stream.write(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.channel {
            Channel::Plain(_) => Ok(()),
            Channel::Tls(stream) => stream.flush(),
        }
    }
}
