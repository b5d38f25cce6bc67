//! Flush, maintenance and close of an open image: what durability is asked for, and when.

use std::time::Instant;

use qed_pending::Room;

use crate::durability::lock::Metadata;
use crate::error::ImageError;
use crate::image::Image;

impl Image {
    /// Makes every write that completed before this call durable.
    ///
    /// Dirty bits that cannot be cleared meanwhile, on a full file system for one, stay, and are no
    /// error.
    ///
    /// # Errors
    /// A failed write of a table or of the header can be tried again. After a failed flush of the
    /// storage nothing is known of what is durable: the image takes no more writes, see
    /// [`ImageError::WritesStopped`].
    // spec: QED-RW-07
    pub fn flush(&self) -> Result<(), ImageError> {
        self.durability.flush(self.cx())?;
        self.space.reclaim();
        if self.pending.take_loss() { Err(ImageError::PendingLost) } else { Ok(()) }
    }

    /// Does what is due at `now` and returns when to call again; `None` when nothing is waiting, until
    /// the next write.
    ///
    /// Five seconds after it first found tables that are not in the file it flushes; when it found
    /// none written for five seconds it clears NEED_CHECK, and after five more the dirty bits of tables,
    /// or empties the journal. A journal that is half full goes home at once. Once the file has become
    /// longer it looks through all tables for free space, two milliseconds of every ten. Call it from a
    /// timer: the library starts no threads.
    ///
    /// # Errors
    /// As [`Image::flush`]; what was due stays due. After the end of writing it is always an error.
    pub fn maintain(&self, now: Instant) -> Result<Option<Instant>, ImageError> {
        let due = self.durability.maintain(now, self.cx())?;
        let space_due = self.maintain_space(now)?;
        Ok([due, space_due].into_iter().flatten().min())
    }

    /// Room in the pending log for a change of `count` entries, of which a flush makes some where there is
    /// none. The caller may hold a request and claims, and no lock that a flush takes; or it holds the
    /// metadata lock with the image to itself, and commits before the log is full.
    // spec: QED-PEND-05
    pub(super) fn room(&self, count: u64) -> Result<Room<'_>, ImageError> {
        loop {
            match self.pending.room(count) {
                Some(room) => return Ok(room),
                None => self.durability.flush(self.cx())?,
            }
        }
    }

    /// Flushes, clears what says that the image is in use and gives back what the file has beyond the
    /// image. What is written or flushed afterwards fails with [`ImageError::Closed`]; reads go on. A
    /// second call does nothing.
    ///
    /// It does not wait for requests in flight, which may be for ever: such a one fails, or ends in
    /// clusters that it had before, and is not durable. See [`Image::has_requests`].
    ///
    /// The image lock is the storage's, and ends with it. Dropping an image that is open does the same as
    /// this and cannot report what failed.
    ///
    /// # Errors
    /// As [`Image::flush`]. The image stays open then, and closing can be tried again; but where it could not
    /// be written that it has no owner any more it takes no more writes.
    pub fn close(&self) -> Result<(), ImageError> {
        let metadata = &mut *self.durability.lock(&self.head);
        if self.head.writing().is_closed() {
            return Ok(());
        }
        self.flush_and_place(metadata)?;
        // From here on no request gets space, so none has any behind the end.
        let len = self.space.alloc.seal();
        let closed = self.end_at(len, metadata);
        match closed {
            // Before the metadata lock ends: no thread commits a change to an image that is clean.
            Ok(()) => self.head.writing().close(),
            Err(_) => self.space.alloc.unseal(),
        }
        closed
    }

    /// Whether a request is in flight, or was a moment ago. Of an image that is closed without one nothing
    /// is written any more, so that its lock may be given back.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        self.space.guards.any()
    }

    /// Marks the image clean, cuts the file at `len` and flushes.
    fn end_at(&self, len: u64, metadata: &mut Metadata) -> Result<(), ImageError> {
        self.durability.mark_clean(metadata, len, self.cx())?;
        self.durability.settle_end(metadata, len, self.cx())?;
        self.space.alloc.end.cut_if_longer(len)?;
        // Half of it leaves an image whose log nobody believes.
        self.head.give_up_ownership().inspect_err(|_| self.head.writing().stop())?;
        self.head.sync()?;
        // Last: until here the next process would want it.
        if let Some(log) = self.head.log() {
            log.remove();
        }
        Ok(())
    }

    /// A flush, then step "place windows" and another: what the guest wrote does not wait for tables
    /// that are read for space that it did not ask for.
    pub(super) fn flush_and_place(&self, metadata: &mut Metadata) -> Result<(), ImageError> {
        self.durability.commit(metadata, self.cx())?;
        // A sweep would find what is on its way from a window to an entry.
        let mut sweep = self.space.sweep();
        let placed = self.place_windows();
        if sweep.take().is_some() {
            self.space.abandon_sweep(None);
            self.space.want_new_sweep();
        }
        drop(sweep);
        if !self.durability.has_nothing_pending(self.cx()) {
            self.durability.commit(metadata, self.cx())?;
        }
        placed
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.head.writing().is_open() {
            // Nobody is left to hear of a failure; the image then asks for a check.
            drop(self.close());
        }
    }
}

#[cfg(test)]
mod tests;
