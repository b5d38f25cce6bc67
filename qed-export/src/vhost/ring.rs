//! A split virtqueue: takes heads from the available ring and gives them back by the used ring. Knows
//! neither descriptors' meaning nor disks.

use std::sync::atomic::{AtomicU16, Ordering, fence};

use thiserror::Error;

use super::chain::DESCRIPTOR_BYTES;
use super::log::{DirtyLog, NotCovered};
use super::memory::{Area, Memory, MemoryError};
use super::wire::{NO_INTERRUPT, NO_NOTIFY};

/// The largest queue: as many descriptors as a chain may have.
pub const MAX_QUEUE_SIZE: u16 = 1024;

const AVAILABLE_HEADER: usize = 4;
const USED_HEADER: usize = 4;
const USED_ELEMENT: usize = 8;

/// Where a frontend says that the parts of a ring are, in its own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingAddress {
    /// The table of descriptors.
    pub descriptors: u64,
    /// The available ring.
    pub available: u64,
    /// The used ring.
    pub used: u64,
    /// Where the used ring counts as written in the dirty log, a guest address; none where it is not
    /// logged.
    pub used_log: Option<u64>,
}

/// Why a ring cannot go on: the driver, or whoever shares it, broke its rules.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum RingError {
    #[error("a queue of {0} descriptors: a power of two up to {MAX_QUEUE_SIZE} is one")]
    Size(u16),
    #[error("a part of the ring")]
    Memory(#[from] MemoryError),
    #[error("a part of the ring is gone")]
    Gone,
    #[error("{waiting} heads are said to wait in a queue of {size}")]
    TooManyWaiting { waiting: u16, size: u16 },
    #[error("head {0} is not in the queue")]
    NoSuchHead(u16),
    #[error(transparent)]
    Log(#[from] NotCovered),
}

/// One queue of a guest, whose parts are mapped.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) descriptors: Area,
    available: Area,
    used: Area,
    size: u16,
    next_available: u16,
    next_used: u16,
    /// The used index when the driver was last told of one.
    told_used: u16,
    has_event_index: bool,
    used_log: Option<u64>,
}

impl Ring {
    /// A ring that goes on where its used ring stands.
    pub(super) fn new(
        memory: &Memory,
        size: u16,
        address: &RingAddress,
        has_event_index: bool,
    ) -> Result<Self, RingError> {
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(RingError::Size(size));
        }
        let (count, event) = (usize::from(size), if has_event_index { 2 } else { 0 });
        let descriptors = memory.area(address.descriptors, count * DESCRIPTOR_BYTES, 16)?;
        let available = memory.area(address.available, AVAILABLE_HEADER + count * 2 + event, 2)?;
        let used = memory.area(address.used, USED_HEADER + count * USED_ELEMENT + event, 4)?;
        let used_log = address.used_log;
        let mut ring = Self {
            descriptors,
            available,
            used,
            size,
            next_available: 0,
            next_used: 0,
            told_used: 0,
            has_event_index,
            used_log,
        };
        ring.next_used = ring.used_index()?.load(Ordering::Acquire);
        ring.next_available = ring.next_used;
        ring.told_used = ring.next_used;
        Ok(ring)
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// The index of the next head to take.
    pub(super) fn next_available(&self) -> u16 {
        self.next_available
    }

    /// The index of the next one to give back.
    pub(super) fn next_used(&self) -> u16 {
        self.next_used
    }

    pub(super) fn go_on_from(&mut self, next_available: u16) {
        self.next_available = next_available;
    }

    /// The next head that waits; none when all were taken.
    pub(super) fn take(&mut self) -> Result<Option<u16>, RingError> {
        let waiting = self.available_index()?.wrapping_sub(self.next_available);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.size {
            return Err(RingError::TooManyWaiting { waiting, size: self.size });
        }
        let slot = usize::from(self.next_available % self.size);
        let head = self.available.u16_at(AVAILABLE_HEADER + slot * 2).ok_or(RingError::Gone)?;
        let head = u16::from_le(head.load(Ordering::Relaxed));
        if head >= self.size {
            return Err(RingError::NoSuchHead(head));
        }
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(head))
    }

    /// Gives a head back, with the number of bytes that were written for it.
    pub(super) fn give_back(
        &mut self,
        head: u16,
        written: u32,
        log: Option<&DirtyLog>,
    ) -> Result<(), RingError> {
        let slot = usize::from(self.next_used % self.size);
        let offset = USED_HEADER + slot * USED_ELEMENT;
        for (at, value) in [(offset, u32::from(head)), (offset + 4, written)] {
            let word = self.used.u32_at(at).ok_or(RingError::Gone)?;
            word.store(value.to_le(), Ordering::Relaxed);
        }
        self.log_used(log, offset, USED_ELEMENT)?;
        self.next_used = self.next_used.wrapping_add(1);
        self.used_index()?.store(self.next_used.to_le(), Ordering::Release);
        self.log_used(log, 2, 2)
    }

    /// Whether something was given back since it was last asked whether the driver wants an interrupt.
    pub(super) fn has_untold(&self) -> bool {
        self.told_used != self.next_used
    }

    /// Whether the driver wants an interrupt for what was given back since it was last asked.
    pub(super) fn wants_interrupt(&mut self) -> Result<bool, RingError> {
        // The used index is seen before the driver's wish is read.
        fence(Ordering::SeqCst);
        let told = std::mem::replace(&mut self.told_used, self.next_used);
        if !self.has_event_index {
            let flags = self.available.u16_at(0).ok_or(RingError::Gone)?;
            return Ok(u16::from_le(flags.load(Ordering::Relaxed)) & NO_INTERRUPT == 0);
        }
        let event = AVAILABLE_HEADER + usize::from(self.size) * 2;
        let event = self.available.u16_at(event).ok_or(RingError::Gone)?;
        let event = u16::from_le(event.load(Ordering::Relaxed));
        // Whether it lies among those that were given back.
        let passed = self.next_used.wrapping_sub(event).wrapping_sub(1);
        Ok(passed < self.next_used.wrapping_sub(told))
    }

    /// Asks for kicks, and says whether something came before it did.
    pub(super) fn ask_for_kicks(&mut self, log: Option<&DirtyLog>) -> Result<bool, RingError> {
        if self.has_event_index {
            let event = USED_HEADER + usize::from(self.size) * USED_ELEMENT;
            let word = self.used.u16_at(event).ok_or(RingError::Gone)?;
            word.store(self.next_available.to_le(), Ordering::Relaxed);
            self.log_used(log, event, 2)?;
        } else {
            self.set_used_flags(0, log)?;
        }
        // The wish is seen before the index is read again.
        fence(Ordering::SeqCst);
        Ok(self.available_index()? != self.next_available)
    }

    /// Says that kicks are not needed: the ring is looked at anyway.
    pub(super) fn ask_for_no_kicks(&mut self, log: Option<&DirtyLog>) -> Result<(), RingError> {
        // With an event index there is one kick for each wish.
        if self.has_event_index { Ok(()) } else { self.set_used_flags(NO_NOTIFY, log) }
    }

    fn set_used_flags(&self, flags: u16, log: Option<&DirtyLog>) -> Result<(), RingError> {
        let word = self.used.u16_at(0).ok_or(RingError::Gone)?;
        word.store(flags.to_le(), Ordering::Relaxed);
        self.log_used(log, 0, 2)
    }

    fn available_index(&self) -> Result<u16, RingError> {
        let index = self.available.u16_at(2).ok_or(RingError::Gone)?;
        Ok(u16::from_le(index.load(Ordering::Acquire)))
    }

    fn used_index(&self) -> Result<&AtomicU16, RingError> {
        self.used.u16_at(2).ok_or(RingError::Gone)
    }

    fn log_used(&self, log: Option<&DirtyLog>, offset: usize, len: usize) -> Result<(), RingError> {
        if let (Some(log), Some(at)) = (log, self.used_log) {
            log.mark(at.saturating_add(offset as u64), len as u64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
