//! Signals: SIGINT and SIGTERM stop the program, at once or at a safe point; SIGUSR1 asks for the
//! progress, SIGUSR2 a server to compact its images.
//!
//! A command that only reads ends at once. One that writes defers: the first signal is seen at the
//! next safe point, a second one ends the program where it stands.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, flag};

use crate::failure::Interrupted;

/// What the signals said.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    at_once: Arc<AtomicBool>,
    requested: Arc<AtomicUsize>,
    progress: Arc<AtomicBool>,
    /// What makes a second signal end the program.
    seconds: Vec<SigId>,
}

/// What a program waits for that ends in order.
#[derive(Debug)]
pub(crate) struct StopSignal {
    stream: UnixStream,
    at_once: Arc<AtomicBool>,
}

/// What hears each time that a compaction is asked for.
#[derive(Debug)]
pub(crate) struct CompactSignal(UnixStream);

impl CompactSignal {
    /// Waits until it is asked for; signals that come together are one.
    ///
    /// # Errors
    /// The system's: nobody would hear of another.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        match self.0.read(&mut [0; 64]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl StopSignal {
    /// Waits until a signal asks to stop.
    pub(crate) fn wait(&mut self) {
        // Whatever ends the wait: nobody would hear of a signal any more.
        drop(self.stream.read(&mut [0]));
    }

    /// From now on another signal ends the program where it stands.
    pub(crate) fn end_at_next(&self) {
        self.at_once.store(true, Ordering::SeqCst);
    }
}

impl Interrupts {
    /// Catches the signals from now on.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        let mut this = Self { at_once: Arc::new(AtomicBool::new(true)), ..Self::default() };
        for signal in [SIGINT, SIGTERM] {
            // In this order: end if told to, else remember and end the next time.
            let second =
                flag::register_conditional_shutdown(signal, 128 + signal, this.at_once.clone())
                    .and_then(|_| {
                        let number = usize::try_from(signal).unwrap_or_default();
                        flag::register_usize(signal, this.requested.clone(), number)
                    })
                    .and_then(|_| flag::register(signal, this.at_once.clone()))
                    .context("Could not catch signals")?;
            this.seconds.push(second);
        }
        flag::register(SIGUSR1, this.progress.clone()).context("Could not catch signals")?;
        Ok(this)
    }

    /// From now on signals wait for [`Interrupts::check`].
    pub(crate) fn defer(&self) {
        self.at_once.store(false, Ordering::SeqCst);
    }

    /// A safe point.
    ///
    /// # Errors
    /// [`Interrupted`] if a signal asked to stop.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        match i32::try_from(self.requested.load(Ordering::SeqCst)) {
            Ok(signal) if signal != 0 => Err(Interrupted { signal }),
            _ => Ok(()),
        }
    }

    /// What hears the first signal. A second one ends the program only after
    /// [`StopSignal::end_at_next`].
    pub(crate) fn stop_signal(&self) -> anyhow::Result<StopSignal> {
        let (stream, write) = UnixStream::pair().context("Could not catch signals")?;
        for signal in [SIGINT, SIGTERM] {
            write
                .try_clone()
                .and_then(|write| pipe::register(signal, write))
                .context("Could not catch signals")?;
        }
        for second in &self.seconds {
            unregister(*second);
        }
        Ok(StopSignal { stream, at_once: self.at_once.clone() })
    }

    /// What hears SIGUSR2 from now on.
    pub(crate) fn compact_signal(&self) -> anyhow::Result<CompactSignal> {
        let (stream, write) = UnixStream::pair().context("Could not catch signals")?;
        pipe::register(SIGUSR2, write).context("Could not catch signals")?;
        Ok(CompactSignal(stream))
    }

    /// Whether SIGUSR1 came since the last call.
    pub(crate) fn take_progress_request(&self) -> bool {
        self.progress.swap(false, Ordering::SeqCst)
    }
}
