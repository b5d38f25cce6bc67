//! Progress: `-p` rewrites one line of standard output, SIGUSR1 prints one line to standard error.

use std::sync::Mutex;
use std::sync::PoisonError;

use crate::console::Console;
use crate::interrupts::Interrupts;

/// The progress of one command.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    console: &'a Console,
    interrupts: &'a Interrupts,
    shown: bool,
    /// Hundredths of a percent that were printed last.
    last: Mutex<u64>,
}

const COMPLETE: u64 = 10_000;
/// A step smaller than this is not printed.
const STEP: u64 = 100;

impl<'a> Progress<'a> {
    /// Starts at nothing; prints only if `shown` or asked by signal.
    pub(crate) fn start(
        console: &'a Console,
        interrupts: &'a Interrupts,
        shown: bool,
    ) -> anyhow::Result<Self> {
        let this = Self { console, interrupts, shown, last: Mutex::new(0) };
        if shown {
            this.print(0)?;
        }
        Ok(this)
    }

    /// `done` of `total` are done.
    pub(crate) fn report(&self, done: u64, total: u64) -> anyhow::Result<()> {
        let now = hundredths(done, total);
        if self.interrupts.take_progress_request() && !self.shown {
            self.console.say(&line(now));
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let step = now.saturating_sub(*last) >= STEP || now == COMPLETE && *last != COMPLETE;
        if !self.shown || !step {
            return Ok(());
        }
        *last = now;
        self.print(now)
    }

    /// All is done.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        if self.shown {
            self.print(COMPLETE)?;
            self.console.print_now("\n")?;
        }
        Ok(())
    }

    fn print(&self, now: u64) -> anyhow::Result<()> {
        self.console.print_now(format!("{}\r", line(now)))
    }
}

fn line(now: u64) -> String {
    format!("    ({}.{:02}/100%)", now / 100, now % 100)
}

fn hundredths(done: u64, total: u64) -> u64 {
    if total == 0 {
        return COMPLETE;
    }
    let now = u128::from(done.min(total)) * u128::from(COMPLETE) / u128::from(total);
    u64::try_from(now).unwrap_or(COMPLETE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_hundredths_of_a_percent() {
        assert_eq!(hundredths(1, 3), 3333);
        assert_eq!(hundredths(u64::MAX, u64::MAX), COMPLETE);
        assert_eq!(hundredths(0, 0), COMPLETE);
        assert_eq!(line(3333), "    (33.33/100%)");
        assert_eq!(line(5), "    (0.05/100%)");
    }
}
