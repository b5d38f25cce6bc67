//! What requests go to, and how the first part of one is served there.

use std::io;

use qed_core::{
    Allocation, BackingFile, ExtentKind, GuestExtentKind, Image, ImageError, IoAction, Prepared,
    Request,
};
use qed_io::{AlignedBuf, FileStorage};
use qed_spec::{GuestOffset, HostOffset};

/// What the requests of an engine go to; its data lies in the engine's file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'i> {
    /// Reads and writes.
    Image(&'i Image),
    /// Reads of a disk that nobody changes.
    Disk(&'i dyn BackingFile),
    /// The bytes of the file itself.
    File,
}

/// How a request goes on.
pub(crate) enum Step<'i> {
    /// So many bytes are served, without a transfer.
    Served(usize),
    /// Bytes of the file are to be moved.
    Transfer(Part<'i>),
    /// Others have to end first.
    Busy,
}

/// Bytes of a request that lie together in the file.
pub(crate) struct Part<'i> {
    /// Bytes of the request.
    pub(crate) len: usize,
    /// Where the transfer begins in the file.
    pub(crate) host: HostOffset,
    /// What is written instead of the request's bytes: these, and what goes around them.
    pub(crate) instead: Option<AlignedBuf>,
    pub(crate) kept: Kept<'i>,
}

/// What makes the place of a part stay the request's until the transfer has ended.
pub(crate) enum Kept<'i> {
    Nothing,
    Request(#[expect(dead_code, reason = "held until the transfer has ended")] Request<'i>),
    Allocation(Allocation<'i>),
}

/// Whether a step waits for what others have begun. Who has transfers in flight must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    Asks,
}

impl<'i> Target<'i> {
    /// Reads or plans to read the first bytes of `buf`, which is not empty, from `at`.
    pub(crate) fn read(
        self,
        buf: &mut [u8],
        at: GuestOffset,
        patience: Patience,
    ) -> Result<Step<'i>, ImageError> {
        match self {
            Self::Image(image) => {
                let Some(request) = begin(image, patience) else { return Ok(Step::Busy) };
                let extent = request.map(at, buf.len() as u64)?;
                let len = in_buffer(extent.len);
                if let ExtentKind::Data(host) = extent.kind {
                    return Ok(transfer(len, host, Kept::Request(request)));
                }
                request.read_at(&mut buf[..len], at)?;
                Ok(Step::Served(len))
            }
            Self::Disk(disk) => {
                let end = at.checked_add(buf.len() as u64);
                if end.is_none_or(|end| end.get() > disk.len()) {
                    let len = buf.len() as u64;
                    return Err(ImageError::OutOfRange {
                        at: at.get(),
                        len,
                        image_size: disk.len(),
                    });
                }
                let extent = disk.extent_at(at.get(), buf.len() as u64)?;
                let len = in_buffer(extent.len);
                match extent.kind {
                    GuestExtentKind::Data { host_offset } if extent.depth == 0 => {
                        Ok(transfer(len, HostOffset::new(host_offset), Kept::Nothing))
                    }
                    _ => {
                        disk.read_at(&mut buf[..len], at.get())?;
                        Ok(Step::Served(len))
                    }
                }
            }
            Self::File => Ok(transfer(buf.len(), HostOffset::new(at.get()), Kept::Nothing)),
        }
    }

    /// Finds or allocates a place for the first bytes of `buf`, which is not empty.
    pub(crate) fn write(
        self,
        file: &FileStorage,
        buf: &[u8],
        at: GuestOffset,
        patience: Patience,
    ) -> Result<Step<'i>, ImageError> {
        let image = match self {
            Self::Image(image) => image,
            Self::Disk(_) => {
                return Err(ImageError::Io {
                    action: IoAction::WriteData,
                    at: HostOffset::new(0),
                    source: io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        "the disk is open for reading only",
                    ),
                });
            }
            Self::File => {
                return Ok(transfer(buf.len(), HostOffset::new(at.get()), Kept::Nothing));
            }
        };
        let Some(request) = begin(image, patience) else { return Ok(Step::Busy) };
        let len = buf.len() as u64;
        let prepared = match patience {
            Patience::Waits => Some(request.prepare(at, len)?),
            Patience::Asks => request.try_prepare(at, len)?,
        };
        match prepared {
            None => Ok(Step::Busy),
            Some(Prepared::InPlace { host, len }) => {
                Ok(transfer(in_buffer(len), host, Kept::Request(request)))
            }
            Some(Prepared::Allocating(allocation)) => allocating(file, buf, allocation),
        }
    }
}

/// The write to new clusters, together with what it leaves of them.
fn allocating<'i>(
    file: &FileStorage,
    buf: &[u8],
    mut allocation: Allocation<'i>,
) -> Result<Step<'i>, ImageError> {
    let len = in_buffer(allocation.len());
    let [before, behind] = allocation.surroundings()?;
    let host = HostOffset::new(allocation.host().get() - before.len() as u64);
    let instead = (!before.is_empty() || !behind.is_empty()).then(|| {
        let mut all = file.buffer(before.len() + len + behind.len());
        let (head, rest) = all.split_at_mut(before.len());
        let (middle, tail) = rest.split_at_mut(len);
        head.copy_from_slice(&before);
        middle.copy_from_slice(&buf[..len]);
        tail.copy_from_slice(&behind);
        all
    });
    Ok(Step::Transfer(Part { len, host, instead, kept: Kept::Allocation(allocation) }))
}

fn begin(image: &Image, patience: Patience) -> Option<Request<'_>> {
    match patience {
        Patience::Waits => Some(image.request()),
        Patience::Asks => image.try_request(),
    }
}

fn transfer(len: usize, host: HostOffset, kept: Kept<'_>) -> Step<'_> {
    Step::Transfer(Part { len, host, instead: None, kept })
}

fn in_buffer(len: u64) -> usize {
    usize::try_from(len).expect("at most the buffer's length")
}
