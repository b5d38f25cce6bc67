//! Steps that give space up and use it again.

use std::thread;

use qed_core::{CompactOptions, CompactStep, Image};
use qed_io::RequestKind;
use qed_spec::GuestOffset;

use super::guest::{What, ZERO};
use super::run::{Runner, StepError};
use super::workload::{Beside, CRASH_CLUSTER};
use crate::sparse::SECTOR;

impl Runner {
    /// Discards a range, of which whole clusters are zeros then; the last of the disk may be partial.
    pub(crate) fn discard(
        &mut self,
        image: &Image,
        first: u64,
        count: u64,
    ) -> Result<(), StepError> {
        let (start, end) = (first.next_multiple_of(CRASH_CLUSTER), first + count);
        let is_last = end * SECTOR == image.image_size();
        let end = if is_last { end } else { end - end % CRASH_CLUSTER };
        if start < end {
            self.log(What::Asked { first: start, count: end - start, tag: ZERO });
        }
        Ok(image.discard(GuestOffset::new(first * SECTOR), count * SECTOR)?)
    }

    /// A flush, and a write while a request of it is on its way to the disk, if there is one.
    pub(crate) fn write_beside(
        &mut self,
        image: &Image,
        what: Beside,
        first: u64,
        count: u64,
    ) -> Result<(), StepError> {
        let Some(stopper) = self.stopper.clone().filter(|_| self.is_cached()) else {
            self.flush(image, Vec::new())?;
            return self.guest_write(image, first, count);
        };
        let last_before = self.next_tag;
        let kind = match what {
            Beside::Flush => RequestKind::Flush,
            Beside::Punch => RequestKind::Discard,
        };
        let held = stopper.hold(move |request| request.kind == kind);
        thread::scope(|scope| {
            let flush = scope.spawn(|| image.flush());
            while !held.is_stopped() && !flush.is_finished() {
                thread::yield_now();
            }
            let mut beside = Ok(());
            if held.is_stopped() {
                beside = self.guest_write(image, first, count);
                // A flush that is stopped has the turn that another would wait for.
                if beside.is_ok() && what == Beside::Punch {
                    beside = self.flush(image, Vec::new());
                }
            }
            held.release();
            flush.join().map_err(|_| "a flush panicked")??;
            beside
        })?;
        let beside = last_before + 1..=self.next_tag;
        self.acknowledge(if what == Beside::Flush { beside.collect() } else { Vec::new() });
        Ok(())
    }

    /// So many steps of a compaction, with a write behind each as far as there are any.
    pub(crate) fn compact(
        &mut self,
        image: &Image,
        steps: u64,
        defragment: bool,
        writes: &[(u64, u64)],
    ) -> Result<(), StepError> {
        let mut compaction = image.compact(CompactOptions { defragment });
        let mut writes = writes.iter();
        for _ in 0..steps {
            if matches!(compaction.step()?, CompactStep::Done(_)) {
                break;
            }
            if let Some((first, count)) = writes.next() {
                self.guest_write(image, *first, *count)?;
            }
        }
        Ok(())
    }
}
