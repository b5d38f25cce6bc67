//! What signals do to a service: end it, or compact its images.

use std::time::Duration;

use anyhow::Context as _;
use qed_export::server::{CompactHandle, StopHandle};

use crate::app::Context;

/// Signals within this time are one: `timeout`, and a terminal with a wrapper, send two at once.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Ends the service when a signal asks for it.
pub(super) fn stop_at_signal(context: &Context, stop: StopHandle) -> anyhow::Result<()> {
    let mut signal = context.interrupts.stop_signal()?;
    let wait = move || {
        signal.wait();
        stop.stop();
        std::thread::sleep(ONE_SIGNAL);
        signal.end_at_next();
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(wait).context("Could not wait for signals")?;
    // One that came before there was a stream is there too.
    Ok(context.interrupts.check()?)
}

/// Compacts the images whenever a signal asks for it.
pub(super) fn compact_at_signal(context: &Context, handle: CompactHandle) -> anyhow::Result<()> {
    let mut signal = context.interrupts.compact_signal()?;
    let wait = move || loop {
        match signal.wait() {
            Ok(()) => handle.compact(),
            Err(error) => return tracing::error!(%error, "no signal compacts images any more"),
        }
    };
    let thread = std::thread::Builder::new().name("compaction".to_owned());
    thread.spawn(wait).context("Could not wait for signals")?;
    Ok(())
}
