//! A write to new clusters over a backing file: what the guest leaves of them is read first, and
//! goes to the file with the guest's bytes.

use std::ops::Range;
use std::sync::Arc;

use qed_core::{Allocation, Image, ImageError, read_backing};
use qed_io::{AlignedBuf, FileStorage, StableBuf};
use qed_spec::{GuestOffset, HostOffset};

use crate::target::{Place, Rest, below, in_buffer, stored};

/// The bytes of a write and what goes around them, on the way to being complete.
pub(crate) struct Surrounded {
    image: Arc<Image>,
    allocation: Allocation<Arc<Image>>,
    /// None while the ring has it.
    bytes: Option<AlignedBuf>,
    /// First byte of the disk that lies in the buffer.
    start: u64,
    /// What is to be read still.
    missing: [Range<u64>; 2],
}

/// Bytes that are read for a [`Surrounded`].
pub(crate) struct Piece {
    pub(crate) bytes: AlignedBuf,
    pub(crate) part: Range<usize>,
    pub(crate) place: Place,
}

/// A write that is complete.
pub(crate) struct Complete {
    pub(crate) allocation: Allocation<Arc<Image>>,
    pub(crate) bytes: AlignedBuf,
    pub(crate) host: HostOffset,
}

/// How it goes on.
pub(crate) enum Next {
    /// These bytes are read, and [`Surrounded::read`] is told.
    Read(Piece, Surrounded),
    Write(Complete),
}

impl Surrounded {
    /// A write of the first bytes of `rest`, as many as were allocated, between `around`.
    pub(crate) fn new(
        image: Arc<Image>,
        file: &FileStorage,
        rest: &mut Rest<'_, impl StableBuf>,
        allocation: Allocation<Arc<Image>>,
        around: [Range<u64>; 2],
    ) -> Self {
        let guest = allocation.guest();
        let [before, behind] = &around;
        let start = if before.is_empty() { guest.start } else { before.start };
        let end = if behind.is_empty() { guest.end } else { behind.end };
        let mut bytes = file.buffer(in_buffer(end - start));
        let own = &mut bytes[within(&guest, start)];
        rest.show(in_buffer(allocation.len()), |guest| own.copy_from_slice(guest));
        Self { image, allocation, bytes: Some(bytes), start, missing: around }
    }

    /// Reads what can be read at once, up to something that lies in a file or to the end.
    pub(crate) fn go_on(mut self) -> Result<Next, ImageError> {
        let mut bytes = self.bytes.take().expect("the ring has given it back");
        while let Some(range) = self.missing.iter().find(|range| !range.is_empty()).cloned() {
            let at = GuestOffset::new(range.start);
            // Past the backing file, the zeros of the buffer are what is there.
            let Some(disk) = below(&self.image, at) else {
                self.read(range.end - range.start);
                continue;
            };
            let len = range.end.min(disk.len()) - range.start;
            let (len, place) = stored(&**disk, at, len)?;
            let part = within(&(range.start..range.start + len), self.start);
            match place {
                Some(place) => {
                    return Ok(Next::Read(Piece { bytes, part, place }, self));
                }
                None => disk.read_at(&mut bytes[part], range.start)?,
            }
            self.read(len);
        }
        let guest = self.allocation.guest().start;
        let host = HostOffset::new(self.allocation.host().get() - (guest - self.start));
        Ok(Next::Write(Complete { allocation: self.allocation, bytes, host }))
    }

    /// Takes in that the ring has tried to read `len` bytes; what it could not read is asked of the
    /// backing file, which may be shorter than its last cluster and tells what is wrong.
    pub(crate) fn moved(
        &mut self,
        mut bytes: AlignedBuf,
        len: u64,
        result: std::io::Result<()>,
    ) -> Result<(), ImageError> {
        if result.is_err() {
            let at = self.missing.iter().find(|range| !range.is_empty()).map_or(0, |it| it.start);
            let part = within(&(at..at + len), self.start);
            read_backing(self.image.backing().map(|backing| &**backing), &mut bytes[part], at)?;
        }
        self.bytes = Some(bytes);
        self.read(len);
        Ok(())
    }

    /// So many bytes of what is missing are here.
    fn read(&mut self, len: u64) {
        if let Some(range) = self.missing.iter_mut().find(|range| !range.is_empty()) {
            range.start += len;
        }
    }
}

/// Where bytes of the disk lie in a buffer that begins with byte `start`.
fn within(range: &Range<u64>, start: u64) -> Range<usize> {
    in_buffer(range.start - start)..in_buffer(range.end - start)
}
