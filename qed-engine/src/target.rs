//! What requests go to, and how the first part of one is served there.

use std::io;

use qed_core::{
    Allocation, ExtentKind, GuestExtentKind, Image, ImageError, IoAction, Prepared, Request,
    VirtualDisk,
};
use qed_io::FileStorage;
use qed_spec::{GuestOffset, HostOffset};

use crate::surroundings::Surrounded;

/// What the requests of an engine go to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'i> {
    /// Reads and writes; its data lies in the engine's file.
    Image(&'i Image),
    /// Reads of a disk that nobody changes.
    Disk(&'i dyn VirtualDisk),
    /// The bytes of the engine's file itself.
    File,
}

/// How a request goes on.
pub(crate) enum Step<'i> {
    /// So many bytes are served, without a transfer.
    Served(usize),
    /// Bytes of a file are to be moved.
    Transfer(Part<'i>),
    /// Bytes are to be written with others around them, which have to be read first.
    Surrounded(Surrounded<'i>),
    /// Others have to end first.
    Busy,
}

/// Bytes of a request that lie together in a file.
pub(crate) struct Part<'i> {
    /// Bytes of the request.
    pub(crate) len: usize,
    pub(crate) place: Place<'i>,
    pub(crate) kept: Kept<'i>,
}

/// Where bytes lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'i> {
    pub(crate) file: &'i FileStorage,
    pub(crate) host: HostOffset,
}

/// What makes the place of a part stay the request's until the transfer has ended.
pub(crate) enum Kept<'i> {
    Nothing,
    /// The place is one of a disk that tells of it as a whole: of a backing file, or one that is
    /// only read. If it cannot be read there, the disk is asked.
    Below(
        &'i dyn VirtualDisk,
        #[expect(dead_code, reason = "as below")] Option<Request<&'i Image>>,
    ),
    Request(#[expect(dead_code, reason = "held until the transfer has ended")] Request<&'i Image>),
    Allocation(Allocation<&'i Image>),
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
        file: &'i FileStorage,
        buf: &mut [u8],
        at: GuestOffset,
        patience: Patience,
    ) -> Result<Step<'i>, ImageError> {
        match self {
            Self::Image(image) => {
                let Some(request) = begin(image, patience) else { return Ok(Step::Busy) };
                let extent = request.map(at, buf.len() as u64)?;
                let len = in_buffer(extent.len);
                match (extent.kind, below(image, at)) {
                    (ExtentKind::Data(host), _) => {
                        Ok(transfer(len, Place { file, host }, Kept::Request(request)))
                    }
                    (ExtentKind::Unallocated, Some(disk)) => {
                        let left = disk.len() - at.get();
                        let len = extent.len.min(left);
                        plan_below(disk, &mut buf[..in_buffer(len)], at, Some(request))
                    }
                    _ => {
                        request.read_at(&mut buf[..len], at)?;
                        Ok(Step::Served(len))
                    }
                }
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
                plan_below(disk, buf, at, None)
            }
            Self::File => {
                let host = HostOffset::new(at.get());
                Ok(transfer(buf.len(), Place { file, host }, Kept::Nothing))
            }
        }
    }

    /// Finds or allocates a place for the first bytes of `buf`, which is not empty.
    pub(crate) fn write(
        self,
        file: &'i FileStorage,
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
                let host = HostOffset::new(at.get());
                return Ok(transfer(buf.len(), Place { file, host }, Kept::Nothing));
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
                Ok(transfer(in_buffer(len), Place { file, host }, Kept::Request(request)))
            }
            Some(Prepared::Allocating(mut allocation)) => {
                let around = allocation.surroundings()?;
                if around.iter().any(|range| !range.is_empty()) {
                    return Ok(Step::Surrounded(Surrounded::new(
                        image, file, buf, allocation, around,
                    )));
                }
                let (len, host) = (in_buffer(allocation.len()), allocation.host());
                Ok(transfer(len, Place { file, host }, Kept::Allocation(allocation)))
            }
        }
    }
}

/// The backing file of an image, if it reaches beyond `at`.
pub(crate) fn below(image: &Image, at: GuestOffset) -> Option<&dyn VirtualDisk> {
    image.backing().map(|backing| &**backing).filter(|backing| at.get() < backing.len())
}

/// Reads or plans to read the first bytes of `buf`, which lies inside the disk.
fn plan_below<'i>(
    disk: &'i dyn VirtualDisk,
    buf: &mut [u8],
    at: GuestOffset,
    request: Option<Request<&'i Image>>,
) -> Result<Step<'i>, ImageError> {
    let (len, place) = stored(disk, at, buf.len() as u64)?;
    let len = in_buffer(len);
    match place {
        Some(place) => Ok(transfer(len, place, Kept::Below(disk, request))),
        None => {
            disk.read_at(&mut buf[..len], at.get())?;
            Ok(Step::Served(len))
        }
    }
}

/// The longest run from `at` that lies together, and its place if that is in a file; of at most
/// `len` bytes, all of them inside the disk.
pub(crate) fn stored(
    disk: &dyn VirtualDisk,
    at: GuestOffset,
    len: u64,
) -> Result<(u64, Option<Place<'_>>), ImageError> {
    let extent = disk.extent_at(at.get(), len)?;
    let GuestExtentKind::Data { host_offset } = extent.kind else { return Ok((extent.len, None)) };
    let file = disk.data_storage(at.get(), extent.depth).and_then(FileStorage::of);
    let place = file.map(|file| Place { file, host: HostOffset::new(host_offset) });
    Ok((extent.len, place))
}

fn begin(image: &Image, patience: Patience) -> Option<Request<&Image>> {
    match patience {
        Patience::Waits => Some(image.request()),
        Patience::Asks => image.try_request(),
    }
}

fn transfer<'i>(len: usize, place: Place<'i>, kept: Kept<'i>) -> Step<'i> {
    Step::Transfer(Part { len, place, kept })
}

pub(crate) fn in_buffer(len: u64) -> usize {
    usize::try_from(len).expect("at most the buffer's length")
}
