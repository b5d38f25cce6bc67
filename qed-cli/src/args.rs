//! What the command line says: option conventions, and the values that options take.

mod cache_mode;
mod format;
mod getopt;
mod option_list;
mod output_format;
mod refused;
mod size;

pub(crate) use cache_mode::CacheMode;
pub(crate) use format::{Format, by_name, parse_driver, parse_target, refuse_qcow2};
pub(crate) use getopt::{parse_error, with_conventions};
pub(crate) use option_list::{OptionList, OptionSpec, OptionType, OptionValues};
pub(crate) use output_format::{OutputFormat, ReportArgs};
pub(crate) use refused::{Refused, refuse_later_subcommand};
pub(crate) use size::{number_in, option_size, parse_size};

use std::ffi::{OsStr, OsString};

use crate::failure::usage;

/// The one file name a subcommand takes.
pub(crate) fn one_name(names: &[OsString]) -> anyhow::Result<&OsStr> {
    match names {
        [name] => Ok(name),
        _ => Err(usage("Expecting one image file name")),
    }
}
