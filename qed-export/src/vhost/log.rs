//! The dirty log: one bit for each page of the guest that was written, for a guest that is being moved.

use std::sync::atomic::Ordering;

use thiserror::Error;

use super::memory::Shared;
use super::wire::LOG_PAGE_BYTES;

/// The log that a frontend shares.
#[derive(Debug)]
pub(super) struct DirtyLog(Shared);

/// A page that the log has no bit for: to go on would lose what was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the dirty log has no bit for {at:#x}")]
pub(super) struct NotCovered {
    at: u64,
}

impl DirtyLog {
    pub(super) fn new(shared: Shared) -> Self {
        Self(shared)
    }

    /// Notes that bytes of the guest were written, after they were.
    pub(super) fn mark(&self, at: u64, len: u64) -> Result<(), NotCovered> {
        let Some(last) = len.checked_sub(1) else { return Ok(()) };
        for page in at / LOG_PAGE_BYTES..=at.saturating_add(last) / LOG_PAGE_BYTES {
            let byte = usize::try_from(page / 8).ok().and_then(|byte| self.0.u8_at(byte));
            let byte = byte.ok_or(NotCovered { at: page * LOG_PAGE_BYTES })?;
            byte.fetch_or(1 << (page % 8), Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
impl DirtyLog {
    /// Whether a page is marked.
    pub(super) fn has(&self, page: u64) -> bool {
        let byte = self.0.u8_at(usize::try_from(page / 8).unwrap()).unwrap();
        byte.load(Ordering::Relaxed) & 1 << (page % 8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::memory_file;
    use super::*;

    fn log(bytes: u64) -> DirtyLog {
        DirtyLog::new(Shared::new(memory_file(bytes), 0, bytes).unwrap())
    }

    fn set(log: &DirtyLog) -> Vec<u64> {
        (0..4096 * 8).filter(|page| log.has(*page)).collect()
    }

    #[test]
    fn every_page_that_a_range_touches_is_marked_and_no_other() {
        let cases: [(u64, u64, &[u64]); 6] = [
            (0, 0, &[]),
            (0, 1, &[0]),
            (4095, 1, &[0]),
            (4095, 2, &[0, 1]),
            (4096 * 7, 4096 * 2, &[7, 8]),
            (4096 * 8 + 1, 4096, &[8, 9]),
        ];
        for (at, len, pages) in cases {
            let log = log(4096);
            log.mark(at, len).unwrap();
            assert_eq!(set(&log), pages, "{at} {len}");
        }
    }

    #[test]
    fn a_page_without_a_bit_is_an_error() {
        let log = log(4096);
        let end = 4096 * 8 * LOG_PAGE_BYTES;
        log.mark(end - 1, 1).unwrap();
        assert_eq!(log.mark(end - 1, 2), Err(NotCovered { at: end }));
        assert!(log.mark(u64::MAX, u64::MAX).is_err());
    }
}
