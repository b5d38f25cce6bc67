//! The loop: starts requests, waits for transfers, and lets go on what waited for others.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use qed_core::{Image, ImageError, VirtualDisk};
use qed_io::{AlignedBuf, Direction, FileStorage, Memory, Ring, StableBuf, Transfer, Transferred};
use qed_spec::GuestOffset;

use crate::target::{Patience, Target};
use crate::work::{State, Work};

/// Requests to one image in flight from one thread.
///
/// A read that starts after a write was served finds its bytes; requests that overlap while both are
/// in flight have no defined order. What was served is durable after the next [`Image::flush`], which
/// may be called at any time. A request that has to wait for another thread has its turn after a few
/// others, however many are started meanwhile.
///
/// Where the image runs out of space, what is in flight ends first, then free space is looked for
/// ([`Image::sweep`]), and the requests that found none are tried once more.
///
/// What blocks are the calls that read tables, and all of them when free space is looked for, those parts of backing files that do not lie in a
/// file as they are (compressed clusters, say), and the first part of a request that is not aligned
/// as the file's direct I/O wants it.
///
/// Dropping an engine waits for the transfers in flight; an allocating write that was not served by
/// then leaves the disk as it was. Should [`Engine::wait`] have failed because the kernel does not
/// answer, the clusters of requests in flight are never given to others: the kernel may still write to
/// them. A request for one of the same clusters of the disk, or a resize, then waits for ever;
/// all else goes on, and the image can be flushed and closed. It stays open, as far as the memory and
/// the file go, since what is in flight holds it.
pub struct Engine<B: StableBuf = AlignedBuf> {
    ring: Ring<Memory<B>>,
    works: Vec<Option<Work<B>>>,
    file: Arc<FileStorage>,
    target: Target,
    /// Requests that wait for others, in their order.
    parked: VecDeque<usize>,
    /// Requests that were begun since one of those that wait last had its turn, and the most that are.
    overtaking: usize,
    most: usize,
    /// Requests that found no space, and the errors that they end with if none turns up. Nothing else is
    /// begun until what is in flight has ended: whoever looks for free space waits for that.
    starved: Vec<(usize, ImageError)>,
    served: VecDeque<Served<B>>,
}

/// What became of a request that was let go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Had,
    /// It waits; the transfer that let it go on says where in the line.
    Parked,
}

/// So many requests for each transfer that may be in flight overtake one that waits: it is seldom that
/// what a request waits for takes longer, and to hold the others back costs.
const OVERTAKING: usize = 4;

/// What an engine is asked for: as many bytes as the buffer has.
#[derive(Debug)]
pub struct EngineRequest<B = AlignedBuf> {
    /// Whatever tells the caller's requests apart.
    pub tag: u64,
    /// Read or write.
    pub direction: Direction,
    /// First byte of the virtual disk.
    pub at: u64,
    /// Of the engine until the request is served: memory of the caller, which is not copied where the
    /// file takes it as it lies, or what [`Engine::buffer`] makes.
    pub buffer: B,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Served<B = AlignedBuf> {
    /// What [`EngineRequest::tag`] was.
    pub tag: u64,
    /// The caller's again; unspecified after a read that failed.
    pub buffer: B,
    /// All of it was served, or why not. Part of a write may then be on the disk.
    pub result: Result<(), ImageError>,
}

impl<B: StableBuf> Engine<B> {
    /// Reads and writes of an image, up to `depth` transfers of its file at a time.
    ///
    /// Other threads may use the image at the same time, also for changing its size.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if the image does not lie in a file that holds the guest's bytes
    /// as they are; else as
    /// [`FileStorage::ring`].
    pub fn for_image(image: Arc<Image>, depth: u32) -> io::Result<Self> {
        let Some(file) = image.direct().and_then(FileStorage::shared) else {
            let why = "the guest's bytes do not lie in a file as they are";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        Self::new(Target::Image(image), file, depth)
    }

    /// Reads of a disk that nobody changes meanwhile; `file` is that of its uppermost image.
    ///
    /// # Errors
    /// As [`FileStorage::ring`].
    pub fn for_reading(
        disk: Arc<dyn VirtualDisk>,
        file: Arc<FileStorage>,
        depth: u32,
    ) -> io::Result<Self> {
        Self::new(Target::Disk(disk), file, depth)
    }

    /// Reads and writes of the bytes of a file, which is a raw image.
    ///
    /// # Errors
    /// As [`FileStorage::ring`].
    pub fn for_raw(file: Arc<FileStorage>, depth: u32) -> io::Result<Self> {
        Self::new(Target::File, file, depth)
    }

    fn new(target: Target, file: Arc<FileStorage>, depth: u32) -> io::Result<Self> {
        Ok(Self {
            ring: file.ring(depth)?,
            works: Vec::new(),
            file,
            target,
            parked: VecDeque::new(),
            overtaking: 0,
            most: OVERTAKING.saturating_mul(depth.max(1) as usize),
            starved: Vec::new(),
            served: VecDeque::new(),
        })
    }

    /// A buffer of zeros that needs no copy on its way to the file or from it.
    #[must_use]
    pub fn buffer(&self, len: usize) -> AlignedBuf {
        self.file.buffer(len)
    }

    /// Starts a request. More of them than the depth wait for room.
    pub fn start(&mut self, request: EngineRequest<B>) {
        let EngineRequest { tag, direction, at, buffer } = request;
        let work = Work::new(tag, direction, GuestOffset::new(at), buffer);
        let free = self.works.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.works.push(None);
            self.works.len() - 1
        });
        let others_wait = !self.parked.is_empty() || self.ring.pending() > 0;
        if !self.starved.is_empty() || others_wait && self.overtaking >= self.most {
            self.works[number] = Some(work);
            self.parked.push_back(number);
            return;
        }
        self.overtaking += 1;
        if self.go_on(number, work, Patience::Asks) == Turn::Parked {
            self.parked.push_back(number);
        }
    }

    /// Waits until a request has ended; none if none is in flight.
    ///
    /// # Errors
    /// Only of the engine as a whole, which is of no use then; that of a request is its result.
    pub fn wait(&mut self) -> io::Result<Option<Served<B>>> {
        loop {
            if let Some(served) = self.served.pop_front() {
                return Ok(Some(served));
            }
            if let Some(transferred) = self.ring.wait()? {
                self.ended(transferred);
                continue;
            }
            if !self.starved.is_empty() {
                self.look_for_space();
                continue;
            }
            // Nothing of this engine is in the way of anybody: now it may wait for others.
            let Some(number) = self.parked.pop_front() else { return Ok(None) };
            self.overtaking = 0;
            if self.try_again(number, Patience::Waits) == Turn::Parked {
                self.parked.push_front(number);
            }
        }
    }

    /// A request that has ended, without waiting for one; none if none has. The kernel is told of
    /// what was started.
    ///
    /// # Errors
    /// As [`Engine::wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<Served<B>>> {
        loop {
            if let Some(served) = self.served.pop_front() {
                return Ok(Some(served));
            }
            if let Some(transferred) = self.ring.try_wait()? {
                self.ended(transferred);
                continue;
            }
            if self.ring.pending() > 0 {
                return Ok(None);
            }
            if !self.starved.is_empty() {
                self.look_for_space();
                continue;
            }
            let Some(number) = self.parked.pop_front() else { return Ok(None) };
            self.overtaking = 0;
            if self.try_again(number, Patience::Asks) == Turn::Parked {
                self.parked.push_front(number);
                // Another thread has what it waits for, and says nothing when it gives it back.
                self.ring.wake()?;
                return Ok(None);
            }
        }
    }

    /// Readable when [`Engine::try_wait`] may have something, for an event loop.
    ///
    /// The loop calls `try_wait` until it gives none, after requests were started as well, and
    /// waits for this only then. A request that waits for another thread keeps it readable. It is the
    /// engine's: others only wait for it.
    ///
    /// # Errors
    /// The operating system's, when it is asked for first.
    pub fn completion_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.ring.completion_fd()
    }

    fn ended(&mut self, transferred: Transferred<Memory<B>>) {
        let Transferred { tag, buffer, result } = transferred;
        let number = usize::try_from(tag).expect("the ring gives back the number of a request");
        let Some(mut work) = self.works[number].take() else { return };
        let frees_clusters = work.is_allocating();
        match work.moved(buffer, result) {
            Ok(()) => {
                if self.go_on(number, work, Patience::Asks) == Turn::Parked {
                    self.parked.push_back(number);
                }
            }
            Err(error) => self.serve(work, Err(error)),
        }
        if self.parked.is_empty() {
            self.overtaking = 0;
        }
        // A change of the size that waited may be over as well.
        self.try_parked(frees_clusters || self.ring.pending() == 0);
    }

    /// Lets those go on that wait: as many as can if `all` may, else from the first to one that has
    /// to wait on. Another thread may have what that one waits for, and says nothing when it gives it
    /// back.
    fn try_parked(&mut self, all: bool) {
        if !self.starved.is_empty() {
            return;
        }
        for index in 0..self.parked.len() {
            let Some(number) = self.parked.pop_front() else { return };
            // The first has waited long enough for nobody else to be let by.
            let in_order = !all || self.overtaking >= self.most;
            match self.try_again(number, Patience::Asks) {
                Turn::Had if in_order || index == 0 => self.overtaking = 0,
                Turn::Had => {}
                Turn::Parked if in_order => return self.parked.push_front(number),
                Turn::Parked => self.parked.push_back(number),
            }
        }
    }

    /// Looks for free space now that nothing of this engine is in flight, and tries those once more that
    /// found none.
    fn look_for_space(&mut self) {
        let is_found = self.target.finds_space();
        for (number, error) in std::mem::take(&mut self.starved) {
            let Some(work) = self.works[number].take() else { continue };
            if !is_found {
                self.serve(work, Err(error));
            } else if self.go_on(number, work, Patience::Asks) == Turn::Parked {
                self.parked.push_back(number);
            }
        }
    }

    fn try_again(&mut self, number: usize, patience: Patience) -> Turn {
        match self.works[number].take() {
            Some(work) => self.go_on(number, work, patience),
            None => Turn::Had,
        }
    }

    fn go_on(&mut self, number: usize, mut work: Work<B>, patience: Patience) -> Turn {
        match work.go_on(&self.target, &self.file, patience) {
            Ok(State::Ended) => self.serve(work, Ok(())),
            Err(error) => self.serve(work, Err(error)),
            Ok(State::Parked) => {
                self.works[number] = Some(work);
                return Turn::Parked;
            }
            Ok(State::Starved(error)) => {
                self.works[number] = Some(work);
                self.starved.push((number, error));
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
        Turn::Had
    }

    fn serve(&mut self, work: Work<B>, result: Result<(), ImageError>) {
        let tag = work.tag;
        self.served.push_back(Served { tag, buffer: work.into_buffer(), result });
    }
}

impl<B: StableBuf> Drop for Engine<B> {
    fn drop(&mut self) {
        if self.ring.settle().is_err() {
            // What a request holds is what keeps others away from where the kernel may write.
            std::mem::forget(std::mem::take(&mut self.works));
        }
    }
}

impl<B: StableBuf> std::fmt::Debug for Engine<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ring, target, .. } = self;
        f.debug_struct("Engine").field("ring", ring).field("target", target).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
