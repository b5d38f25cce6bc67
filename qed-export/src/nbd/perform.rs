//! One request and its disk: does what it says and makes the reply. Knows no socket and no thread.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::negotiation::Session;
use super::reply::{MetaContext, Position, Replies, Reply, ReplyTo};
use super::request::{Incoming, MAX_PAYLOAD_BYTES, Request};
use super::status::Statuses;
use super::wire::Errno;
use crate::device::{
    Allocation, BlockDevice, DeviceError, Durability, Space, Speed, Zeroing, chain,
};

/// A read of at least this many bytes is answered without its holes.
const SPARSE_READ_BYTES: usize = 64 << 10;
/// After so many holes the rest of a read is told as data: their chunks would cost more than they
/// save, and a hostile image could have one for every cluster.
const MAX_HOLES: usize = 256;
/// Read at a time when a range is to be cached.
const CACHE_STEP_BYTES: usize = 256 << 10;
/// Zeroed or trimmed at a time; between two steps a server that has to end can.
const STEP_BYTES: u64 = 4 << 30;
const STORED_ZERO_STEP_BYTES: u64 = 16 << 20;
/// What a buffer keeps between requests: making a longer one costs little beside filling it.
const KEPT_BYTES: usize = 4 << 20;

/// The buffers of one thread that serves requests.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    data: Vec<u8>,
    /// Bytes of `data` that belong to the request.
    used: usize,
    pub(super) reply: Reply,
}

impl Scratch {
    /// Room for the data of one request; what it holds is old.
    pub(super) fn data(&mut self, len: usize) -> &mut [u8] {
        if self.data.len() < len {
            self.data = vec![0; len];
        }
        self.used = len;
        &mut self.data[..len]
    }

    /// The data of the request.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.data[..self.used]
    }

    /// Gives back what only a long request needed, now that its reply is sent: the next one may be
    /// long in coming.
    pub(super) fn give_back(&mut self) {
        if self.data.len() > KEPT_BYTES {
            *self = Self { reply: std::mem::take(&mut self.reply), ..Self::default() };
        }
    }
}

/// Serves a request whose payload, if any, is in `scratch`, and leaves the reply there.
pub(super) fn perform(
    session: &Session<'_>,
    incoming: &Incoming,
    scratch: &mut Scratch,
    is_cut: &AtomicBool,
) -> Result<(), Errno> {
    let device = &**session.export.device();
    let mut reply = std::mem::take(&mut scratch.reply);
    let mut to = reply.to(incoming.target, session.replies);
    let outcome = match incoming.request {
        Ok(request) => serve(session, request, scratch, &mut to, is_cut),
        Err(errno) => Err(Refusal::Protocol(errno)),
    };
    let result = outcome.map_err(|refusal| {
        let is_write =
            matches!(incoming.request, Ok(Request::Write { .. } | Request::WriteZeroes { .. }));
        let errno = refusal.errno(is_write);
        if let Refusal::Device(DeviceError::Failed(source)) = &refusal
            && session.export.may_log()
        {
            tracing::warn!(export = %session.export.shown_name(), "{}", chain(&**source));
        }
        let text = if device.is_read_only() && errno == Errno::Perm {
            "the disk is read-only".to_owned()
        } else {
            refusal.text()
        };
        to.error(errno, &text);
        errno
    });
    scratch.reply = reply;
    result
}

/// Refuses a request without a look at the disk.
pub(super) fn refuse(
    session: &Session<'_>,
    incoming: &Incoming,
    scratch: &mut Scratch,
    errno: Errno,
) {
    scratch.used = 0;
    scratch.reply.to(incoming.target, session.replies).error(errno, "the server is closing");
}

/// Why a request was not served.
enum Refusal {
    Device(DeviceError),
    Protocol(Errno),
}

impl From<DeviceError> for Refusal {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

impl Refusal {
    fn errno(&self, is_write: bool) -> Errno {
        match self {
            Self::Device(error) => errno_of(error, is_write),
            Self::Protocol(errno) => *errno,
        }
    }

    /// For the client, which is told nothing of files and tables.
    fn text(&self) -> String {
        match self {
            Self::Device(error) => error.to_string(),
            Self::Protocol(Errno::Shutdown) => "the server is closing".to_owned(),
            Self::Protocol(_) => "the request is not valid here".to_owned(),
        }
    }
}

/// The one place where errors of disks become numbers of the protocol.
fn errno_of(error: &DeviceError, is_write: bool) -> Errno {
    match error {
        DeviceError::ReadOnly => Errno::Perm,
        DeviceError::OutOfRange { .. } if is_write => Errno::NoSpc,
        DeviceError::OutOfRange { .. } => Errno::Inval,
        DeviceError::NoSpace(_) => Errno::NoSpc,
        DeviceError::NotFast | DeviceError::Unsupported(_) => Errno::NotSup,
        DeviceError::Refused(_) => Errno::Inval,
        DeviceError::Inactive => Errno::Shutdown,
        DeviceError::Failed(_) => Errno::Io,
    }
}

fn serve(
    session: &Session<'_>,
    request: Request,
    scratch: &mut Scratch,
    to: &mut ReplyTo<'_>,
    is_cut: &AtomicBool,
) -> Result<(), Refusal> {
    let device = &**session.export.device();
    match request {
        Request::Read { at, len, one_chunk } => read(device, at, len, one_chunk, scratch, to)?,
        Request::Write { at, durability } => {
            device.write_at(scratch.bytes(), at, durability)?;
            to.done();
        }
        Request::Flush => {
            device.flush()?;
            to.done();
        }
        Request::Trim { at, len, durability } => {
            trim(device, at, len, durability, is_cut)?;
            to.done();
        }
        Request::Cache { at, len } => {
            cache(device, at, len, scratch)?;
            to.done();
        }
        Request::WriteZeroes { at, len, how } => {
            zero(device, at, len, how, is_cut)?;
            to.done();
        }
        Request::BlockStatus { at, len, one_extent } => {
            block_status(session, at, len, one_extent, to)?;
        }
        // Has no reply; whoever reads requests ends there.
        Request::Disconnect => {}
    }
    Ok(())
}

fn read(
    device: &dyn BlockDevice,
    at: u64,
    len: usize,
    one_chunk: bool,
    scratch: &mut Scratch,
    to: &mut ReplyTo<'_>,
) -> Result<(), DeviceError> {
    check(device, at, len as u64)?;
    let buf = scratch.data(len);
    let is_sparse = len >= SPARSE_READ_BYTES && !one_chunk && to.replies() != Replies::Simple;
    if is_sparse {
        return read_sparse(device, at, buf, to);
    }
    device.read_at(buf, at)?;
    if len == 0 {
        to.done()
    } else {
        to.data(at, 0..len, Position::Last)
    }
    Ok(())
}

/// Reads what is stored and tells of the rest.
fn read_sparse(
    device: &dyn BlockDevice,
    at: u64,
    buf: &mut [u8],
    to: &mut ReplyTo<'_>,
) -> Result<(), DeviceError> {
    let mut done = 0;
    // A chunk of data is told when it is known where it ends.
    let mut data_start = 0;
    let mut holes = 0;
    while done < buf.len() {
        let place = at + done as u64;
        let left = buf.len() - done;
        if holes == MAX_HOLES {
            device.read_at(&mut buf[done..], place)?;
            done = buf.len();
            break;
        }
        let extent = device.extent_at(place, left as u64)?;
        let len = usize::try_from(extent.len).unwrap_or(left).clamp(1, left);
        if extent.allocation == Allocation::Data {
            device.read_at(&mut buf[done..done + len], place)?;
        } else {
            if data_start < done {
                to.data(at + data_start as u64, data_start..done, Position::Inner);
            }
            holes += 1;
            let last = done + len == buf.len();
            let position = if last { Position::Last } else { Position::Inner };
            to.hole(place, u32::try_from(len).unwrap_or(MAX_PAYLOAD_BYTES), position);
            data_start = done + len;
        }
        done += len;
    }
    if data_start < done {
        to.data(at + data_start as u64, data_start..done, Position::Last);
    }
    Ok(())
}

/// Reads a range for the file cache below, as far as one request may ask for.
fn cache(
    device: &dyn BlockDevice,
    at: u64,
    len: u64,
    scratch: &mut Scratch,
) -> Result<(), DeviceError> {
    check(device, at, len)?;
    let end = at + len.min(MAX_PAYLOAD_BYTES.into());
    let mut at = at;
    while at < end {
        let extent = device.extent_at(at, end - at)?;
        let part = extent.len.clamp(1, CACHE_STEP_BYTES as u64).min(end - at);
        if extent.allocation == Allocation::Hole {
            at += extent.len.max(1);
            continue;
        }
        let buf = scratch.data(usize::try_from(part).unwrap_or(CACHE_STEP_BYTES));
        device.read_at(buf, at)?;
        at += part;
    }
    Ok(())
}

fn zero(
    device: &dyn BlockDevice,
    at: u64,
    len: u64,
    how: Zeroing,
    is_cut: &AtomicBool,
) -> Result<(), Refusal> {
    if device.is_read_only() {
        return Err(DeviceError::ReadOnly.into());
    }
    check(device, at, len)?;
    let step = match how.space {
        Space::MayHaveHoles => STEP_BYTES,
        Space::Allocated => STORED_ZERO_STEP_BYTES,
    };
    // A step that is refused after others were done would be a change after all.
    if how.speed == Speed::FastOnly && len > step {
        return Err(DeviceError::NotFast.into());
    }
    let later = Zeroing { durability: Durability::AfterFlush, ..how };
    let step = if how.speed == Speed::FastOnly { u64::MAX } else { step };
    in_steps(at..at + len, step, is_cut, |at, len| device.write_zeroes(at, len, later))?;
    Ok(settle(device, how.durability)?)
}

fn trim(
    device: &dyn BlockDevice,
    at: u64,
    len: u64,
    durability: Durability,
    is_cut: &AtomicBool,
) -> Result<(), Refusal> {
    if device.is_read_only() {
        return Err(DeviceError::ReadOnly.into());
    }
    check(device, at, len)?;
    let later = Durability::AfterFlush;
    in_steps(at..at + len, STEP_BYTES, is_cut, |at, len| device.trim(at, len, later))?;
    Ok(settle(device, durability)?)
}

/// Lets `act` change a range from one multiple of `step` to the next, and an empty range once.
fn in_steps(
    range: Range<u64>,
    step: u64,
    is_cut: &AtomicBool,
    mut act: impl FnMut(u64, u64) -> Result<(), DeviceError>,
) -> Result<(), Refusal> {
    let mut at = range.start;
    loop {
        if is_cut.load(Ordering::Relaxed) {
            return Err(Refusal::Protocol(Errno::Shutdown));
        }
        let end = (at - at % step).saturating_add(step).min(range.end);
        act(at, end - at)?;
        at = end;
        if at >= range.end {
            return Ok(());
        }
    }
}

fn settle(device: &dyn BlockDevice, durability: Durability) -> Result<(), DeviceError> {
    match durability {
        Durability::AfterFlush => Ok(()),
        Durability::AtReturn => device.flush(),
    }
}

fn block_status(
    session: &Session<'_>,
    at: u64,
    len: u64,
    one_extent: bool,
    to: &mut ReplyTo<'_>,
) -> Result<(), Refusal> {
    if session.contexts.is_empty() {
        return Err(Refusal::Protocol(Errno::Inval));
    }
    let device = &**session.export.device();
    check(device, at, len)?;
    let statuses = Statuses::of(device, at, len, one_extent)?;
    let wanted = MetaContext::ALL.into_iter().filter(|context| session.contexts.has(*context));
    let mut wanted = wanted.peekable();
    while let Some(context) = wanted.next() {
        let position = if wanted.peek().is_none() { Position::Last } else { Position::Inner };
        to.status(context, statuses.list(context), position);
    }
    Ok(())
}

fn check(device: &dyn BlockDevice, at: u64, len: u64) -> Result<(), DeviceError> {
    crate::device::check_range(device.size(), at, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_a_disk_has_its_number() {
        let failed = || DeviceError::Failed("x".into());
        let table = [
            (DeviceError::ReadOnly, Errno::Perm, Errno::Perm),
            (DeviceError::OutOfRange { at: 1, len: 2 }, Errno::Inval, Errno::NoSpc),
            (DeviceError::NoSpace("x".into()), Errno::NoSpc, Errno::NoSpc),
            (DeviceError::NotFast, Errno::NotSup, Errno::NotSup),
            (DeviceError::Unsupported("x"), Errno::NotSup, Errno::NotSup),
            (DeviceError::Refused("x".into()), Errno::Inval, Errno::Inval),
            (DeviceError::Inactive, Errno::Shutdown, Errno::Shutdown),
            (failed(), Errno::Io, Errno::Io),
        ];
        for (error, reading, writing) in table {
            assert_eq!(errno_of(&error, false), reading, "{error}");
            assert_eq!(errno_of(&error, true), writing, "{error}");
        }
    }

    #[test]
    fn a_large_buffer_is_given_back() {
        let mut scratch = Scratch::default();
        scratch.data(MAX_PAYLOAD_BYTES as usize);
        scratch.give_back();
        assert!(scratch.data.capacity() <= KEPT_BYTES);
        scratch.data(KEPT_BYTES);
        scratch.give_back();
        assert_eq!(scratch.data(1).len(), 1);
        assert_eq!(scratch.data.len(), KEPT_BYTES, "it is kept");
    }
}
