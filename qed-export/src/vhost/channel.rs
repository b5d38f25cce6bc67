//! The socket of a frontend: messages with the descriptors that come with them.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::message::{HEAD_BYTES, Head, MAX_TABLE_REGIONS};

/// The most descriptors that come with one message.
const MAX_DESCRIPTORS: usize = MAX_TABLE_REGIONS;

/// A message as it came.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Waits for the next message; none when the frontend has gone.
///
/// # Errors
/// The system's, a message that is none, or one that ends too early.
pub(super) fn receive(mut stream: &UnixStream) -> io::Result<Option<Incoming>> {
    let mut bytes = [0; HEAD_BYTES];
    let mut descriptors = Vec::new();
    let got = receive_first(stream, &mut bytes, &mut descriptors)?;
    if got == 0 {
        return Ok(None);
    }
    // Descriptors come with the first byte.
    stream.read_exact(&mut bytes[got..])?;
    let head = Head::parse(bytes).map_err(invalid)?;
    let mut body = vec![0; head.body_bytes as usize];
    stream.read_exact(&mut body)?;
    Ok(Some(Incoming { head, body, descriptors }))
}

fn receive_first(
    stream: &UnixStream,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(bytes)];
    let received = loop {
        match recvmsg(stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(invalid(format!("more than {MAX_DESCRIPTORS} descriptors in one message")));
    }
    Ok(received.bytes)
}

/// Sends a message, with at most one descriptor.
///
/// # Errors
/// The system's, as when the frontend does not take it.
pub(super) fn send(
    stream: impl AsFd,
    message: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptor = descriptor.as_slice();
    if !descriptor.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptor)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    // Messages are short: a socket takes one as a whole or not at all.
    let flags = flags | SendFlags::NOSIGNAL;
    let sent = sendmsg(stream, &[IoSlice::new(message)], &mut control, flags)?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
