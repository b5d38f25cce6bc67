//! A long operation as the libraries see it: its progress is printed, a signal cancels it.

use std::error::Error;
use std::sync::{Mutex, PoisonError};

use crate::app::Context;
use crate::output::Progress;

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
    /// `shown` is `-p`.
    pub(crate) fn start_writing(
        context: &'a Context,
        shown: bool,
        quiet: bool,
    ) -> anyhow::Result<Self> {
        context.interrupts.defer();
        Self::start(context, shown, quiet)
    }

    /// Starts an operation that a signal may end at once. `shown` is `-p`.
    pub(crate) fn start(context: &'a Context, shown: bool, quiet: bool) -> anyhow::Result<Self> {
        let progress = Progress::start(&context.console, &context.interrupts, shown && !quiet)?;
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

    fn unreadable(&self, offset: u64, len: u64, error: &(dyn Error + 'static)) {
        if !self.quiet {
            self.context.console.error(&format!(
                "warning: error while reading {len} bytes at offset {offset}: {error}"
            ));
        }
    }

    fn is_cancelled(&self) -> bool {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        broken || self.context.interrupts.check().is_err()
    }
}
