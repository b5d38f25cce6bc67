//! The conventions of `getopt_long` on top of clap: what clap is told, and its errors in
//! `getopt`'s words.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::failure::{UsageError, shown};

/// The command with the conventions applied to it and its subcommands: repeated options replace
/// each other, long names may be shortened, a value may begin with a dash.
pub(crate) fn with_conventions(command: Command) -> Command {
    let values_may_begin_with_a_dash = |arg: Arg| {
        let takes_value = arg.get_action().takes_values() && !arg.is_positional();
        if takes_value { arg.allow_hyphen_values(true) } else { arg }
    };
    command
        .args_override_self(true)
        .infer_long_args(true)
        .mut_args(values_may_begin_with_a_dash)
        .mut_subcommands(move |sub| {
            sub.args_override_self(true)
                .infer_long_args(true)
                .mut_args(values_may_begin_with_a_dash)
        })
}

/// The usage error that `error` is.
pub(crate) fn parse_error(error: &clap::Error, command: &Command, args: &[OsString]) -> UsageError {
    let text = match (error.kind(), invalid_arg(error)) {
        (ErrorKind::UnknownArgument, Some(arg)) => unknown(&arg, command, args),
        (ErrorKind::TooManyValues, Some(arg)) => {
            let name = arg.split([' ', '=']).next().unwrap_or_default();
            format!("option '{name}' doesn't allow an argument")
        }
        (ErrorKind::InvalidValue | ErrorKind::NoEquals, Some(arg)) => missing_value(&arg, args),
        _ => error.render().to_string().trim_start_matches("error: ").trim_end().to_owned(),
    };
    UsageError { by_option_parser: true, text }
}

fn invalid_arg(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(arg) => Some(arg.clone()),
        _ => None,
    }
}

fn unknown(arg: &str, command: &Command, args: &[OsString]) -> String {
    let Some(name) = arg.strip_prefix("--") else {
        return format!("invalid option -- '{}'", arg.chars().nth(1).unwrap_or('-'));
    };
    let candidates: Vec<&str> = command
        .get_arguments()
        .filter_map(Arg::get_long)
        .filter(|long| !name.is_empty() && long.starts_with(name))
        .collect();
    if candidates.len() > 1 {
        let names: Vec<String> = candidates.iter().map(|long| format!(" '--{long}'")).collect();
        return format!("option '{arg}' is ambiguous; possibilities:{}", names.concat());
    }
    let given = args.iter().find(|given| given.as_bytes().starts_with(arg.as_bytes()));
    format!("unrecognized option '{}'", given.map_or_else(|| arg.to_owned(), shown))
}

/// An option at the end of the line that lacks its value; `arg` is like `-f <FMT>`.
fn missing_value(arg: &str, args: &[OsString]) -> String {
    let last = args.last().map(|last| last.as_bytes()).unwrap_or_default();
    if last.starts_with(b"--") {
        let name = arg.split([' ', '=']).next().unwrap_or_default();
        let name = if name.starts_with("--") { name } else { &shown(OsStr::from_bytes(last)) };
        return format!("option '{name}' requires an argument");
    }
    let letter = String::from_utf8_lossy(last).chars().last().unwrap_or('-');
    format!("option requires an argument -- '{letter}'")
}
