//! A long operation as the libraries see it: its progress is printed, a signal cancels it.

use std::error::Error;
use std::sync::{Mutex, PoisonError};

use clap::Args;

use crate::app::Context;
use crate::failure::part_text;
use crate::output::Progress;

/// What a long operation says while it runs.
#[derive(Debug, Default, Clone, Copy, Args)]
pub(crate) struct WorkArgs {
    /// Show progress
    #[arg(short, long)]
    pub(crate) progress: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// The program's side of one operation.
pub(crate) struct Work<'a> {
    context: &'a Context,
    progress: Progress<'a>,
    /// Why the progress could not be shown.
    broken: Mutex<Option<anyhow::Error>>,
    quiet: bool,
}

impl<'a> Work<'a> {
    /// Starts an operation that changes a file: from here on signals wait for its safe points.
    pub(crate) fn start_writing(context: &'a Context, args: WorkArgs) -> anyhow::Result<Self> {
        context.interrupts.defer();
        Self::start(context, args)
    }

    /// Starts an operation that a signal may end at once.
    pub(crate) fn start(context: &'a Context, args: WorkArgs) -> anyhow::Result<Self> {
        let WorkArgs { progress, quiet } = args;
        let progress = Progress::start(&context.console, &context.interrupts, progress && !quiet)?;
        Ok(Self { context, progress, broken: Mutex::new(None), quiet })
    }

    /// Ends it; a signal or a closed standard output goes before what the operation returned.
    pub(crate) fn finish<T, E>(self, result: Result<T, E>) -> anyhow::Result<T>
    where
        E: Error + Send + Sync + 'static,
    {
        if let Some(error) = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        if let (Err(_), Err(interrupted)) = (&result, self.context.interrupts.check()) {
            return Err(interrupted.into());
        }
        let value = result?;
        self.progress.finish()?;
        Ok(value)
    }
}

impl qed_convert::Progress for Work<'_> {
    fn advanced(&self, done: u64, total: u64) {
        if let Err(error) = self.progress.report(done, total) {
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn unreadable(&self, offset: u64, _len: u64, error: &(dyn Error + 'static)) {
        if !self.quiet {
            self.context.console.error(&gap_text(offset, error));
        }
    }

    fn is_cancelled(&self) -> bool {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        broken || self.context.interrupts.check().is_err()
    }
}

/// What is said of a sector that could not be read, in `qemu-img`'s words: the cause alone, as the
/// place is known.
fn gap_text(offset: u64, error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("warning: error while reading offset {offset}: {}", part_text(cause))
}

#[cfg(test)]
mod tests {
    use qed_core::{BackingError, ImageError, IoAction};
    use qed_spec::HostOffset;

    use super::*;

    #[test]
    fn a_gap_is_told_with_its_cause() {
        let io = std::io::Error::from_raw_os_error(5);
        let at = HostOffset::new(4096);
        let source = ImageError::Io { action: IoAction::ReadData, at, source: io };
        let error = BackingError::new(65536, source.kind(), source);
        assert_eq!(
            gap_text(66048, &error),
            "warning: error while reading offset 66048: Input/output error"
        );
    }
}
