//! What the command line says: option conventions, the values that options take, and what is refused
//! by name, never ignored.

mod getopt;
mod option_list;
mod size;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use anyhow::{anyhow, bail};
use clap::Args;
use qed_convert::qcow2::Qcow2SnapshotSelector;
use qed_core::DiscardMode;

use crate::failure::{shown, unsupported, usage};

pub(crate) use qed_convert::chain::ImageFormat as Format;

pub(crate) use getopt::{parse_error, with_conventions};
pub(crate) use option_list::{OptionList, OptionSpec, OptionType, OptionValues};
pub(crate) use size::{number_in, option_size, parse_size};

/// The one file name a subcommand takes.
pub(crate) fn one_name(names: &[OsString]) -> anyhow::Result<&OsStr> {
    match names {
        [name] => Ok(name),
        _ => Err(usage("Expecting one image file name")),
    }
}

/// The format of an image to read or change.
pub(crate) fn parse_driver(name: &OsStr) -> anyhow::Result<Format> {
    by_name(name).map_or_else(|| bail!("Unknown driver '{}'", shown(name)), Ok)
}

/// The format of an image to write.
pub(crate) fn parse_target(name: &OsStr) -> anyhow::Result<Format> {
    by_name(name).map_or_else(|| bail!("Unknown file format '{}'", shown(name)), Ok)
}

/// The format with this name, if there is one.
pub(crate) fn by_name(name: &OsStr) -> Option<Format> {
    Format::from_name(name.as_bytes())
}

/// Refuses to change a QCOW2 image in place.
pub(crate) fn refuse_qcow2(format: Format, action: &str) -> anyhow::Result<()> {
    match format {
        Format::Qcow2 => Err(unsupported(format_args!("{action} a qcow2 image in place"))),
        Format::Raw | Format::Qed => Ok(()),
    }
}

/// A cache mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheMode {
    /// Through the page cache; output is durable before success is reported.
    Cached,
    /// Through the page cache; a new image is left there, durable when the system writes it.
    Unsafe,
    /// Past the page cache; output is durable before success is reported.
    Direct,
}

impl CacheMode {
    /// The mode with this name; cached where none is given.
    pub(crate) fn by_name(name: Option<&OsStr>) -> Option<Self> {
        match name.map(OsStr::as_encoded_bytes) {
            None | Some(b"writeback" | b"writethrough") => Some(Self::Cached),
            Some(b"unsafe") => Some(Self::Unsafe),
            Some(b"none" | b"off" | b"directsync") => Some(Self::Direct),
            Some(_) => None,
        }
    }

    /// The mode with this name, or `fault` with the name behind it.
    pub(crate) fn parse(name: Option<&OsStr>, fault: &str) -> anyhow::Result<Self> {
        let unknown = || anyhow!("{fault}: {}", shown(name.unwrap_or_default()));
        Self::by_name(name).ok_or_else(unknown)
    }

    /// Whether the mode with this name makes each write durable before it is done.
    pub(crate) fn is_write_through(name: Option<&OsStr>) -> bool {
        let name = name.map(OsStr::as_encoded_bytes);
        matches!(name, Some(b"writethrough" | b"directsync"))
    }
}

/// The value of `--discard`, in `qemu-nbd`'s words too; reuse where there is none.
pub(crate) fn discard_mode(name: Option<&OsStr>) -> anyhow::Result<DiscardMode> {
    match name.map(OsStr::as_encoded_bytes) {
        None | Some(b"reuse") => Ok(DiscardMode::Reuse),
        Some(b"pass-down" | b"unmap" | b"on") => Ok(DiscardMode::PassDown),
        Some(b"ignore" | b"off") => Ok(DiscardMode::Ignore),
        Some(_) => bail!("Invalid discard mode '{}'", shown(name.unwrap_or_default())),
    }
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    Human,
    Json,
}

impl OutputFormat {
    /// The value of `--output`; human where there is none.
    pub(crate) fn parse(value: Option<&OsStr>) -> anyhow::Result<Self> {
        match value.map(OsStr::as_encoded_bytes) {
            None | Some(b"human") => Ok(Self::Human),
            Some(b"json") => Ok(Self::Json),
            Some(_) => {
                let value = shown(value.unwrap_or_default());
                Err(usage(format!("--output expects 'human' or 'json' not '{value}'")))
            }
        }
    }
}

/// How a command that only reads reports on an image.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Take no lock: the image may be in use
    #[arg(short = 'U', long)]
    pub(crate) force_share: bool,
    /// human (the default) or json
    #[arg(long, value_name = "OFMT")]
    output: Option<OsString>,
}

impl ReportArgs {
    /// What `--output` says.
    pub(crate) fn format(&self) -> anyhow::Result<OutputFormat> {
        OutputFormat::parse(self.output.as_deref())
    }
}

/// Options that every subcommand knows in order to refuse them.
#[derive(Debug, Default, Args)]
pub(crate) struct Refused {
    #[arg(long, hide = true, value_name = "OBJDEF")]
    object: Vec<OsString>,
}

impl Refused {
    /// Fails if one of them was given.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if !self.object.is_empty() {
            return Err(unsupported("the option '--object'"));
        }
        Ok(())
    }
}

const LATER_SUBCOMMANDS: [&str; 1] = ["bitmap"];

/// Fails if `name` is a subcommand of later work.
pub(crate) fn refuse_later_subcommand(name: &OsStr) -> anyhow::Result<()> {
    match LATER_SUBCOMMANDS.iter().find(|later| name == **later) {
        Some(later) => Err(unsupported(format_args!("the subcommand '{later}'"))),
        None => Ok(()),
    }
}

/// The snapshot that the value of `-l` names: an id or a name, or `snapshot.id=`, `snapshot.name=`.
pub(crate) fn parse_snapshot(value: &OsStr) -> anyhow::Result<Qcow2SnapshotSelector> {
    Qcow2SnapshotSelector::parse(value.as_bytes())
        .ok_or_else(|| anyhow!("Failed in parsing snapshot param '{}'", shown(value)))
}
