//! From the command line to an exit code: picks the subcommand, runs it, reports what went wrong.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use crate::args::{parse_error, refuse_later_subcommand, with_conventions};
use crate::commands::Cli;
use crate::console::{Console, is_closed_output};
use crate::failure::{Exit, Interrupted, usage};
use crate::interrupts::Interrupts;

/// What every subcommand is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) console: Console,
    pub(crate) interrupts: Interrupts,
}

/// Runs the program; `args` begin with the name it was called by.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let console = Console::new(program_name(args.first()));
    let subcommand = subcommand_name(&args);
    let exit = match Interrupts::catch() {
        Ok(interrupts) => {
            let context = Context { console, interrupts };
            let result = run(&args, &context).and_then(|exit| {
                context.console.flush()?;
                Ok(exit)
            });
            result.unwrap_or_else(|error| report(&context.console, subcommand.as_deref(), &error))
        }
        Err(error) => report(&console, None, &error),
    };
    ExitCode::from(exit.0)
}

/// The command line as clap understands it, with `getopt`'s conventions.
pub(crate) fn command(program: &str) -> clap::Command {
    let command = Cli::command().name(program.to_owned()).bin_name(program.to_owned());
    with_conventions(with_version(command, program))
}

/// The name by which this program stands for QEMU's.
const QEMU_IMG: &str = "qemu-img";

/// What callers of `qemu-img` read at the start of its version and its help, and take anything else
/// for no `qemu-img`: the version of the one whose answers are those of this program.
const COMPATIBLE: &str = "version 10.0.2";

/// `0.1.0 (commit abc, features: none)`, then what QEMU and the format make of it.
const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    env!("QED_COMMIT"),
    "\nimage formats: qed, qcow2, raw\n",
    "features: ",
    env!("QED_FEATURES"),
);

/// The command with its version, and with what callers of the program by this name look for.
fn with_version(command: clap::Command, program: &str) -> clap::Command {
    if program != QEMU_IMG {
        return command.version(LONG);
    }
    command
        .version(format!("{COMPATIBLE}\n{} {LONG}", env!("CARGO_BIN_NAME")))
        .before_help(format!("{QEMU_IMG} {COMPATIBLE}"))
        .after_help("Supported formats: qcow2 qed raw")
}

fn run(args: &[OsString], context: &Context) -> anyhow::Result<Exit> {
    let mut command = command(context.console.program());
    command.build();
    match args.get(1) {
        None => return Err(usage("Not enough arguments")),
        Some(name) if !name.as_encoded_bytes().starts_with(b"-") => {
            refuse_later_subcommand(name)?;
            if name.to_str().is_none_or(|name| command.find_subcommand(name).is_none()) {
                let name = crate::failure::shown(name);
                return Err(usage(format!("Command not found: {name}")));
            }
        }
        Some(_) => {}
    }
    match command.try_get_matches_from_mut(args) {
        Ok(matches) => Cli::from_arg_matches(&matches)?.run(context),
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            context.console.print(error.render().to_string())?;
            Ok(Exit::SUCCESS)
        }
        Err(error) => {
            let name = subcommand_name(args);
            let command = name.and_then(|name| command.find_subcommand(name).cloned());
            let command = command.unwrap_or_default();
            Err(parse_error(&error, &command, args).into())
        }
    }
}

fn report(console: &Console, subcommand: Option<&str>, error: &anyhow::Error) -> Exit {
    // As `head` does when it has seen enough. The shell shows the same of a program that ends by
    // SIGPIPE, and a pipe that must not be cut short can see it.
    if is_closed_output(error) {
        return Exit::CLOSED_OUTPUT;
    }
    console.failure(subcommand, error);
    match error.downcast_ref::<Interrupted>() {
        Some(Interrupted { signal }) => Exit(u8::try_from(128 + signal).unwrap_or(1)),
        None => Exit::FAILURE,
    }
}

/// The last component of the path the program was called by.
fn program_name(arg: Option<&OsString>) -> String {
    let name = arg.and_then(|arg| Path::new(arg).file_name());
    crate::failure::shown(name.unwrap_or(OsStr::new("qed")))
}

/// The subcommand as it was called, if it is one.
fn subcommand_name(args: &[OsString]) -> Option<String> {
    let name = args.get(1)?.to_str()?;
    Cli::command().find_subcommand(name).map(|_| name.to_owned())
}
