//! The loop: starts requests, waits for transfers, and lets go on what waited for others.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use qed_core::{BackingFile, Image, ImageError};
use qed_io::{AlignedBuf, Direction, FileStorage, Ring, Transfer, Transferred};
use qed_spec::GuestOffset;

use crate::target::{Patience, Target};
use crate::work::{State, Work};

/// Requests to one image in flight from one thread.
///
/// A read that starts after a write was served finds its bytes; requests that overlap while both are
/// in flight have no defined order. What was served is durable after the next [`Image::flush`], which
/// may be called at any time.
///
/// What blocks are the calls that read tables, those parts of backing files that do not lie in a
/// file as they are (compressed clusters, say), and the first part of a request that is not aligned
/// as the file's direct I/O wants it.
///
/// Dropping an engine waits for the transfers in flight; an allocating write that was not served by
/// then leaves the disk as it was.
pub struct Engine<'i> {
    /// First, so that no transfer is under way when the clusters of a request are given back.
    ring: Ring<'i>,
    works: Vec<Option<Work<'i>>>,
    file: &'i FileStorage,
    target: Target<'i>,
    /// Requests that wait for others, in their order.
    parked: VecDeque<usize>,
    served: VecDeque<Served>,
}

/// What an engine is asked for: as many bytes as the buffer has.
#[derive(Debug)]
pub struct EngineRequest {
    /// Whatever tells the caller's requests apart.
    pub tag: u64,
    /// Read or write.
    pub direction: Direction,
    /// First byte of the virtual disk.
    pub at: u64,
    /// Of the engine until the request is served; [`Engine::buffer`] makes one that suits.
    pub buffer: AlignedBuf,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Served {
    /// What [`EngineRequest::tag`] was.
    pub tag: u64,
    /// The caller's again; unspecified after a read that failed.
    pub buffer: AlignedBuf,
    /// All of it was served, or why not. Part of a write may then be on the disk.
    pub result: Result<(), ImageError>,
}

impl<'i> Engine<'i> {
    /// Reads and writes of an image, up to `depth` transfers of its file at a time.
    ///
    /// Other threads may use the image at the same time, also for changing its size.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if `file` is not the storage of the image; else as
    /// [`FileStorage::ring`].
    pub fn for_image(image: &'i Image, file: &'i FileStorage, depth: u32) -> io::Result<Self> {
        if !std::ptr::addr_eq(Arc::as_ptr(image.storage()), file) {
            let why = "the file is not the one that holds the image";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Self::new(Target::Image(image), file, depth)
    }

    /// Reads of a disk that nobody changes meanwhile; `file` is that of its uppermost image.
    ///
    /// # Errors
    /// As [`FileStorage::ring`].
    pub fn for_reading(
        disk: &'i dyn BackingFile,
        file: &'i FileStorage,
        depth: u32,
    ) -> io::Result<Self> {
        Self::new(Target::Disk(disk), file, depth)
    }

    /// Reads and writes of the bytes of a file, which is a raw image.
    ///
    /// # Errors
    /// As [`FileStorage::ring`].
    pub fn for_raw(file: &'i FileStorage, depth: u32) -> io::Result<Self> {
        Self::new(Target::File, file, depth)
    }

    fn new(target: Target<'i>, file: &'i FileStorage, depth: u32) -> io::Result<Self> {
        Ok(Self {
            ring: file.ring(depth)?,
            works: Vec::new(),
            file,
            target,
            parked: VecDeque::new(),
            served: VecDeque::new(),
        })
    }

    /// A buffer of zeros that needs no copy on its way to the file or from it.
    #[must_use]
    pub fn buffer(&self, len: usize) -> AlignedBuf {
        self.file.buffer(len)
    }

    /// Starts a request. More of them than the depth wait for room.
    pub fn start(&mut self, request: EngineRequest) {
        let EngineRequest { tag, direction, at, buffer } = request;
        let work = Work::new(tag, direction, GuestOffset::new(at), buffer);
        let free = self.works.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.works.push(None);
            self.works.len() - 1
        });
        self.go_on(number, work, Patience::Asks);
    }

    /// Waits until a request has ended; none if none is in flight.
    ///
    /// # Errors
    /// Only of the engine as a whole, which is of no use then; that of a request is its result.
    pub fn wait(&mut self) -> io::Result<Option<Served>> {
        loop {
            if let Some(served) = self.served.pop_front() {
                return Ok(Some(served));
            }
            if let Some(transferred) = self.ring.wait()? {
                self.ended(transferred);
            } else {
                // Nothing of this engine is in the way of anybody: now it may wait for others.
                let Some(number) = self.parked.pop_front() else { return Ok(None) };
                self.try_again(number, Patience::Waits);
            }
        }
    }

    fn ended(&mut self, transferred: Transferred) {
        let Transferred { tag, buffer, result } = transferred;
        let number = usize::try_from(tag).expect("the ring gives back the number of a request");
        let Some(mut work) = self.works[number].take() else { return };
        let frees_clusters = work.is_allocating();
        match work.moved(buffer, result) {
            Ok(()) => self.go_on(number, work, Patience::Asks),
            Err(error) => self.serve(work, Err(error)),
        }
        // A change of the size that waited may be over as well.
        if frees_clusters || self.ring.pending() == 0 {
            for _ in 0..self.parked.len() {
                let Some(number) = self.parked.pop_front() else { return };
                self.try_again(number, Patience::Asks);
            }
        }
    }

    fn try_again(&mut self, number: usize, patience: Patience) {
        if let Some(work) = self.works[number].take() {
            self.go_on(number, work, patience);
        }
    }

    fn go_on(&mut self, number: usize, mut work: Work<'i>, patience: Patience) {
        match work.go_on(self.target, self.file, patience) {
            Ok(State::Ended) => self.serve(work, Ok(())),
            Err(error) => self.serve(work, Err(error)),
            Ok(State::Parked) => {
                self.works[number] = Some(work);
                self.parked.push_back(number);
            }
            Ok(State::Moves(moves)) => {
                let transfer = Transfer {
                    tag: number as u64,
                    file: moves.place.file,
                    direction: moves.direction,
                    buffer: moves.buffer,
                    part: moves.part,
                    offset: moves.place.host.get(),
                };
                self.works[number] = Some(work);
                self.ring.start(transfer);
            }
        }
    }

    fn serve(&mut self, work: Work<'_>, result: Result<(), ImageError>) {
        let tag = work.tag;
        self.served.push_back(Served { tag, buffer: work.into_buffer(), result });
    }
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ring, target, .. } = self;
        f.debug_struct("Engine").field("ring", ring).field("target", target).finish_non_exhaustive()
    }
}
