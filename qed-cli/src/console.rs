//! Standard output and standard error: what was printed is flushed before an error is, messages
//! begin with the name the program was called by, and a failed write is an error.

use std::error::Error;
use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};
use std::ops::DerefMut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::failure::{UsageError, error_text, io_error_text};

/// Where a command prints.
#[derive(Debug)]
pub(crate) struct Console {
    program: String,
    out: Mutex<BufWriter<Stdout>>,
}

impl Console {
    pub(crate) fn new(program: String) -> Self {
        Self { program, out: Mutex::new(BufWriter::new(io::stdout())) }
    }

    /// The name the program was called by.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// Prints to standard output.
    pub(crate) fn print(&self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        Ok(self.lock().write_all(bytes.as_ref())?)
    }

    /// Prints and shows it at once.
    pub(crate) fn print_now(&self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.print(bytes)?;
        self.flush()
    }

    /// Shows what was printed.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        Ok(self.lock().flush()?)
    }

    /// Says something on standard error, after all that was printed before it.
    ///
    /// A standard error that cannot be written leaves nobody to tell.
    pub(crate) fn say(&self, line: &str) {
        drop(self.flush());
        drop(writeln!(io::stderr(), "{line}"));
    }

    /// Reports an error that does not end the program.
    pub(crate) fn error(&self, text: &str) {
        self.say(&format!("{}: {text}", self.program));
    }

    /// Reports the error that ends `subcommand`.
    pub(crate) fn failure(&self, subcommand: Option<&str>, error: &anyhow::Error) {
        let Some(usage) = error.downcast_ref::<UsageError>() else {
            return self.error(&error_text(error));
        };
        let command = [&self.program, subcommand.unwrap_or_default()].join(" ");
        let command = command.trim_end();
        let who = if usage.by_option_parser { command } else { &self.program };
        self.say(&format!("{who}: {}\nTry '{command} --help' for more info", usage.text));
    }

    /// Standard output for a command that streams. Nothing else prints while this is held.
    pub(crate) fn lock(&self) -> Out<MutexGuard<'_, BufWriter<Stdout>>> {
        Out(self.out.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Standard output for a command that streams from other threads, past what else is printed.
pub(crate) fn stream() -> Out<Box<Stdout>> {
    Out(Box::new(io::stdout()))
}

/// Whether what failed is that the reader of standard output has gone.
pub(crate) fn is_closed_output(error: &anyhow::Error) -> bool {
    let is_it = |error: &io::Error| {
        let inner = error.get_ref();
        error.kind() == io::ErrorKind::BrokenPipe && inner.is_some_and(|it| it.is::<OutputFailed>())
    };
    error.chain().filter_map(|cause| cause.downcast_ref()).any(is_it)
}

/// Standard output, with errors that say so.
pub(crate) struct Out<W>(W);

impl<W: DerefMut<Target: Write>> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

fn named(error: io::Error) -> io::Error {
    let text = format!("Could not write to standard output: {}", io_error_text(&error));
    io::Error::new(error.kind(), OutputFailed { text })
}

/// Why standard output could not be written.
#[derive(Debug)]
struct OutputFailed {
    text: String,
}

impl fmt::Display for OutputFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for OutputFailed {}
