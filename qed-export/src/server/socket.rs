//! One client's socket: a Unix or TCP stream, and the time that is left for the handshake.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

/// How long a write waits for the client to take anything before its caller is told.
const STALL: Duration = Duration::from_millis(100);

/// A connected socket, used by several threads.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    /// When the handshake must be over.
    deadline: Instant,
    is_negotiating: AtomicBool,
}

/// What is below.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// A socket whose handshake begins now.
    pub(crate) fn new(stream: Stream, time: Duration) -> io::Result<Self> {
        match &stream {
            Stream::Unix(stream) => stream.set_nonblocking(false)?,
            Stream::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                notice_its_end(stream)?;
            }
        }
        let deadline = Instant::now() + time;
        Ok(Self { stream, deadline, is_negotiating: AtomicBool::new(true) })
    }

    /// The stream below, if it is of a Unix socket: it can carry descriptors.
    pub(crate) fn as_unix(&self) -> Option<&UnixStream> {
        match &self.stream {
            Stream::Unix(stream) => Some(stream),
            Stream::Tcp(_) => None,
        }
    }

    /// The handshake is over: from now on the client may be silent. A write that waits for it ends
    /// with [`io::ErrorKind::WouldBlock`] now and then, and can be tried again.
    pub(crate) fn end_negotiation(&self) -> io::Result<()> {
        self.is_negotiating.store(false, Ordering::Relaxed);
        self.set_timeouts(None, Some(STALL))
    }

    /// Ends one or both directions; a thread that waits for the socket goes on.
    pub(crate) fn shut_down(&self, how: Shutdown) {
        // One that is closed by the client is as good.
        drop(match &self.stream {
            Stream::Unix(stream) => stream.shutdown(how),
            Stream::Tcp(stream) => stream.shutdown(how),
        });
    }

    fn set_timeouts(&self, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Unix(stream) => {
                stream.set_read_timeout(read)?;
                stream.set_write_timeout(write)
            }
            Stream::Tcp(stream) => {
                stream.set_read_timeout(read)?;
                stream.set_write_timeout(write)
            }
        }
    }

    /// Before each transfer: the handshake has one deadline, however many pieces it comes in.
    fn watch_the_time(&self) -> io::Result<()> {
        if !self.is_negotiating.load(Ordering::Relaxed) {
            return Ok(());
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long"));
        }
        self.set_timeouts(Some(left), Some(left))
    }
}

/// A client whose machine or network is gone says no goodbye: the system asks after it when it has
/// been silent, and ends the connection if nothing answers, after two minutes in all. While a reply
/// is under way it asks in its own time: to hurry it would end clients that are alive and take nothing.
fn notice_its_end(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval) = (Duration::from_secs(60), Duration::from_secs(10));
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(6);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Read for &Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.watch_the_time()?;
        match &self.stream {
            Stream::Unix(stream) => { stream }.read(buf),
            Stream::Tcp(stream) => { stream }.read(buf),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.watch_the_time()?;
        match &self.stream {
            Stream::Unix(stream) => { stream }.write_vectored(bufs),
            Stream::Tcp(stream) => { stream }.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_tcp_client_that_is_gone_is_noticed_in_two_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let _client = TcpStream::connect(listener.local_addr().expect("its address"));
        let (stream, _) = listener.accept().expect("a client");
        let same = stream.try_clone().expect("a second handle");
        let _socket = Socket::new(Stream::Tcp(stream), Duration::from_secs(1)).expect("a socket");
        let same = SockRef::from(&same);
        assert!(same.keepalive().expect("an option"));
        let idle = same.tcp_keepalive_time().expect("an option");
        let interval = same.tcp_keepalive_interval().expect("an option");
        let count = same.tcp_keepalive_retries().expect("an option");
        assert_eq!(idle + interval * count, Duration::from_secs(120));
    }
}
