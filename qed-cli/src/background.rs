//! A server that goes on in the background: its starting program ends when it is ready, and not before.
//!
//! The server is this program once more, whose standard output is a pipe to the starting one. Its first
//! line says that it is ready; without one its exit code is that of the starting program.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::app::Context;
use crate::failure::Exit;

/// The option by which the program knows that it is the server.
const OPTION: &str = "--in-background";

/// Starts the server with the command line of this program, and waits until it is ready.
pub(crate) fn start(context: &Context) -> anyhow::Result<Exit> {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let subcommand = args.next();
    // Behind the subcommand, since `--` may follow.
    let mut server = Command::new("/proc/self/exe");
    server.arg0(name).args(subcommand).arg(OPTION).args(args);
    let mut server = server.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = Vec::new();
    if let Some(output) = server.stdout.take() {
        BufReader::new(output).read_until(b'\n', &mut line)?;
    }
    if line.ends_with(b"\n") {
        context.console.print_now(line)?;
        return Ok(Exit::SUCCESS);
    }
    // It has said why.
    let code = server.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.filter(|code| *code != 0).map_or(Exit::FAILURE, Exit))
}

/// Leaves the session of whoever started the server, whose terminal sends no signals here then.
pub(crate) fn leave_session() -> anyhow::Result<()> {
    rustix::process::setsid().context("Could not leave the session")?;
    Ok(())
}

/// Lets go of the outputs, which whoever started the server may read to their end.
pub(crate) fn let_go() -> anyhow::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null");
    let nothing = nothing.context("Could not open /dev/null")?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    Ok(())
}
