//! At most so many bytes a second: when the next ones may go. Knows no clock; the caller says what
//! the time is, and waits.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes a second.
    rate: NonZeroU64,
    /// When all bytes that were let through are paid for.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn new(rate: NonZeroU64) -> Self {
        Self { rate, paid: Mutex::new(None) }
    }

    /// Lines up `len` bytes at `now`; how long they have to wait for those before them.
    pub(crate) fn enter(&self, len: u64, now: Instant) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let start = paid.map_or(now, |paid| paid.max(now));
        let nanos = u128::from(len) * NANOS_PER_SECOND / u128::from(self.rate.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *paid = Some(start.checked_add(cost).unwrap_or(start));
        start.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_until_those_before_them_are_paid_for() {
        let throttle = Throttle::new(NonZeroU64::new(1000).unwrap());
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let cases = [
            // The first go at once, and are paid for afterwards.
            (0, 500, 0),
            (0, 500, 500),
            (0, 1000, 1000),
            (1500, 100, 500),
            // Time in which nothing went is not saved up.
            (9000, 1, 0),
            (9000, 1, 1),
            (9001, 0, 1),
        ];
        for (now, len, wait) in cases {
            let waits = throttle.enter(len, at(now));
            assert_eq!(waits, Duration::from_millis(wait), "{len} bytes at {now}");
        }
    }

    #[test]
    fn the_slowest_rate_and_the_most_bytes_do_not_overflow() {
        let throttle = Throttle::new(NonZeroU64::MIN);
        let now = Instant::now();
        assert_eq!(throttle.enter(u64::MAX, now), Duration::ZERO);
        assert!(throttle.enter(u64::MAX, now) > Duration::from_secs(1 << 30));
        throttle.enter(u64::MAX, now);
    }
}
