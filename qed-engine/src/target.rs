//! What requests go to, and how the first part of one is served there.

use std::io;
use std::sync::Arc;

use qed_core::{
    Allocation, ExtentKind, GuestExtentKind, Image, ImageError, IoAction, Prepared, Request,
    VirtualDisk,
};
use qed_io::{FileStorage, StableBuf};
use qed_spec::{GuestOffset, HostOffset};

use crate::surroundings::Surrounded;

/// What the requests of an engine go to.
#[derive(Debug)]
pub(crate) enum Target {
    /// Reads and writes; its data lies in the engine's file.
    Image(Arc<Image>),
    /// Reads of a disk that nobody changes.
    Disk(Arc<dyn VirtualDisk>),
    /// The bytes of the engine's file itself.
    File,
}

type ImageRequest = Request<Arc<Image>>;

/// The bytes of a request that are not served yet.
pub(crate) struct Rest<'b, B> {
    pub(crate) buffer: &'b mut B,
    /// Bytes before them.
    pub(crate) done: usize,
}

/// How a request goes on.
pub(crate) enum Step {
    /// So many bytes are served, without a transfer.
    Served(usize),
    /// Bytes of a file are to be moved.
    Transfer(Part),
    /// Bytes are to be written with others around them, which have to be read first.
    Surrounded(Surrounded),
    /// Others have to end first.
    Busy,
}

/// Bytes of a request that lie together in a file.
pub(crate) struct Part {
    /// Bytes of the request.
    pub(crate) len: usize,
    pub(crate) place: Place,
    pub(crate) kept: Kept,
}

/// Where bytes lie.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) file: Arc<FileStorage>,
    pub(crate) host: HostOffset,
}

/// What makes the place of a part stay the request's until the transfer has ended.
pub(crate) enum Kept {
    Nothing,
    /// The place is one of a disk that tells of it as a whole: of a backing file, or one that is
    /// only read. If it cannot be read there, the disk is asked.
    Below(Arc<dyn VirtualDisk>, #[expect(dead_code, reason = "as below")] Option<ImageRequest>),
    Request(#[expect(dead_code, reason = "held until the transfer has ended")] ImageRequest),
    Allocation(Allocation<Arc<Image>>),
}

/// Whether a step waits for what others have begun. A thread with transfers in flight must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    Asks,
}

impl<B: StableBuf> Rest<'_, B> {
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.done
    }

    /// Lets `read` fill the first bytes.
    fn fill<E>(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.buffer.fill_part(self.done..self.done + len, read)
    }

    /// Shows the first bytes.
    pub(crate) fn show(&mut self, len: usize, see: impl FnOnce(&[u8])) {
        self.buffer.read_part(self.done..self.done + len, see);
    }
}

impl Target {
    /// Reads or plans to read the first bytes of `rest`, which is not empty, from `at`.
    pub(crate) fn read(
        &self,
        file: &Arc<FileStorage>,
        rest: &mut Rest<'_, impl StableBuf>,
        at: GuestOffset,
        patience: Patience,
    ) -> Result<Step, ImageError> {
        match self {
            Self::Image(image) => {
                let Some(request) = begin(image, patience) else { return Ok(Step::Busy) };
                let extent = request.map(at, rest.len() as u64)?;
                let len = in_buffer(extent.len);
                match (extent.kind, below(image, at)) {
                    (ExtentKind::Data(host), _) => {
                        Ok(transfer(len, place(file, host), Kept::Request(request)))
                    }
                    (ExtentKind::Unallocated, Some(disk)) => {
                        let left = disk.len() - at.get();
                        let len = extent.len.min(left);
                        plan_below(disk, rest, in_buffer(len), at, Some(request))
                    }
                    _ => {
                        rest.fill(len, |bytes| request.read_at(bytes, at))?;
                        Ok(Step::Served(len))
                    }
                }
            }
            Self::Disk(disk) => {
                let end = at.checked_add(rest.len() as u64);
                if end.is_none_or(|end| end.get() > disk.len()) {
                    let len = rest.len() as u64;
                    return Err(ImageError::OutOfRange {
                        at: at.get(),
                        len,
                        image_size: disk.len(),
                    });
                }
                plan_below(disk, rest, rest.len(), at, None)
            }
            Self::File => {
                let host = HostOffset::new(at.get());
                Ok(transfer(rest.len(), place(file, host), Kept::Nothing))
            }
        }
    }

    /// Finds or allocates a place for the first bytes of `rest`, which is not empty.
    pub(crate) fn write(
        &self,
        file: &Arc<FileStorage>,
        rest: &mut Rest<'_, impl StableBuf>,
        at: GuestOffset,
        patience: Patience,
    ) -> Result<Step, ImageError> {
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
                return Ok(transfer(rest.len(), place(file, host), Kept::Nothing));
            }
        };
        let Some(request) = begin(image, patience) else { return Ok(Step::Busy) };
        let len = rest.len() as u64;
        let prepared = match patience {
            Patience::Waits => Some(request.prepare(at, len)?),
            Patience::Asks => request.try_prepare(at, len)?,
        };
        match prepared {
            None => Ok(Step::Busy),
            Some(Prepared::InPlace { host, len }) => {
                Ok(transfer(in_buffer(len), place(file, host), Kept::Request(request)))
            }
            Some(Prepared::Allocating(mut allocation)) => {
                let around = allocation.surroundings()?;
                if around.iter().any(|range| !range.is_empty()) {
                    let image = Arc::clone(image);
                    let surrounded = Surrounded::new(image, file, rest, allocation, around);
                    return Ok(Step::Surrounded(surrounded));
                }
                let (len, host) = (in_buffer(allocation.len()), allocation.host());
                Ok(transfer(len, place(file, host), Kept::Allocation(allocation)))
            }
        }
    }
}

impl Target {
    /// Looks for free space, with nothing in flight; whether there may be some.
    pub(crate) fn finds_space(&self) -> bool {
        match self {
            Self::Image(image) => image.sweep().unwrap_or(false),
            Self::Disk(_) | Self::File => false,
        }
    }
}

/// The backing file of an image, if it reaches beyond `at`.
pub(crate) fn below(image: &Image, at: GuestOffset) -> Option<&Arc<dyn VirtualDisk>> {
    image.backing().filter(|backing| at.get() < backing.len())
}

/// Reads or plans to read the first bytes of `rest`, at most `len`, which lie inside the disk.
fn plan_below(
    disk: &Arc<dyn VirtualDisk>,
    rest: &mut Rest<'_, impl StableBuf>,
    len: usize,
    at: GuestOffset,
    request: Option<ImageRequest>,
) -> Result<Step, ImageError> {
    let (len, place) = stored(&**disk, at, len as u64)?;
    let len = in_buffer(len);
    match place {
        Some(place) => Ok(transfer(len, place, Kept::Below(Arc::clone(disk), request))),
        None => {
            rest.fill(len, |bytes| disk.read_at(bytes, at.get()))?;
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
) -> Result<(u64, Option<Place>), ImageError> {
    let extent = disk.extent_at(at.get(), len)?;
    let GuestExtentKind::Data { host_offset } = extent.kind else { return Ok((extent.len, None)) };
    let file = disk.data_storage(at.get(), extent.depth).and_then(FileStorage::shared);
    let place = file.map(|file| Place { file, host: HostOffset::new(host_offset) });
    Ok((extent.len, place))
}

fn begin(image: &Arc<Image>, patience: Patience) -> Option<ImageRequest> {
    match patience {
        Patience::Waits => Some(Request::new(Arc::clone(image))),
        Patience::Asks => Request::try_new(Arc::clone(image)),
    }
}

fn place(file: &Arc<FileStorage>, host: HostOffset) -> Place {
    Place { file: Arc::clone(file), host }
}

fn transfer(len: usize, place: Place, kept: Kept) -> Step {
    Step::Transfer(Part { len, place, kept })
}

pub(crate) fn in_buffer(len: u64) -> usize {
    usize::try_from(len).expect("at most the buffer's length")
}
