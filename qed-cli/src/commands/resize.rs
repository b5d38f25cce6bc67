//! `resize`: another size for the virtual disk.

use std::ffi::{OsStr, OsString};

use anyhow::{anyhow, bail};
use clap::Args;
use qed_convert::chain::Layer;
use qed_core::{CompactOptions, Shrink};
use qed_io::{FileKind, Storage};

use crate::app::Context;
use crate::args::{Format, option_size, refuse_qcow2};
use crate::chain::ChainArgs;
use crate::compaction::{Outcome, compact_and_close};
use crate::failure::{Exit, shown, unsupported, usage};
use crate::image_name::NameArgs;
use crate::open::{OpenHow, open_image, virtual_size};
use crate::work::{Work, WorkArgs};

/// Change the size of the virtual disk.
///
/// New space reads as zeros. A size with a sign is relative to the size now. What a smaller disk does
/// not need any more is free space of the image, which later writes use.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct ResizeArgs {
    /// Format of the image; without it QED and QCOW2 are recognised by their first bytes
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    /// Allow the disk to get smaller; what lies past its new end is lost
    #[arg(long)]
    shrink: bool,
    /// Compact the image afterwards: the file gets as short as it can be
    #[arg(long)]
    compact: bool,
    /// How to allocate the new space; only off is supported yet
    #[arg(long, value_name = "PREALLOC")]
    preallocation: Option<OsString>,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    chain: ChainArgs,
    /// The image
    #[arg(value_name = "FILENAME")]
    filename: Option<OsString>,
    /// The new size, or with a sign the change, with an optional suffix K, M, G, T, P or E
    #[arg(value_name = "[+-]SIZE", allow_hyphen_values = true)]
    size: Option<OsString>,
    #[arg(hide = true)]
    extra: Vec<OsString>,
    #[command(flatten)]
    named: NameArgs,
}

const NOTES: &str = "\
Examples:
  qed resize -f qed disk.qed +10G
  qed resize -f qed --shrink disk.qed 4G
  qed resize -f qed --shrink --compact disk.qed 4G

Exit codes:
  0  the disk has its new size
  1  any error";

pub(crate) fn run(args: ResizeArgs, context: &Context) -> anyhow::Result<Exit> {
    args.named.refused.check()?;
    let (Some(name), Some(size)) = (&args.filename, &args.size) else {
        return Err(usage("Expecting image file name and size"));
    };
    if !args.extra.is_empty() {
        return Err(usage("Extra argument(s) in command line"));
    }
    match args.preallocation.as_deref().map(OsStr::as_encoded_bytes) {
        None | Some(b"off") => {}
        Some(b"metadata" | b"falloc" | b"full") => {
            let mode = shown(args.preallocation.as_deref().unwrap_or_default());
            return Err(unsupported(format_args!("preallocation={mode}")));
        }
        Some(_) => {
            let mode = shown(args.preallocation.unwrap_or_default());
            bail!("Invalid preallocation mode '{mode}'");
        }
    }
    let change = Change::parse(&shown(size))?;
    let name = args.named.image(name, args.format.as_deref())?;
    let image = open_image(&name, OpenHow::WRITE)?;
    refuse_qcow2(image.format(), "resizing")?;
    let old = virtual_size(&image)?;
    let new = change.apply(old)?;
    if new < old && !args.shrink {
        context.console.error("Use the --shrink option to perform a shrink operation.");
        context.console.error(
            "warning: Shrinking an image will delete all data beyond the shrunken image's end. \
             Before performing such an operation, make sure there is no important data there.",
        );
        return Ok(Exit::FAILURE);
    }
    if args.compact && image.format() != Format::Qed {
        return Err(usage("--compact is about QED images"));
    }
    let work = Work::start_writing(context, WorkArgs { progress: false, quiet: args.quiet })?;
    let compacted = resize(&image, &args, new, work)?;
    if !args.quiet {
        context.console.print("Image resized.\n")?;
        context.console.print(compacted.map_or(String::new(), |outcome| outcome.text()))?;
    }
    Ok(Exit::SUCCESS)
}

fn resize(
    image: &Layer,
    args: &ResizeArgs,
    size: u64,
    work: Work<'_>,
) -> anyhow::Result<Option<Outcome>> {
    match image.format() {
        Format::Raw if image.storage().kind() == FileKind::BlockDevice => {
            if size != image.storage().len()? {
                bail!("Cannot resize device files");
            }
        }
        Format::Raw => {
            image.storage().set_len(size.next_multiple_of(512))?;
            image.storage().flush()?;
        }
        Format::Qed => {
            // The backing file decides what has to be hidden where the disk grows over it.
            let open = || args.chain.writable(image, OpenHow::read(false));
            let image = open()?;
            image.resize(size, Shrink::Allow)?;
            if args.compact {
                let options = CompactOptions::default();
                return compact_and_close(image, open, options, work).map(Some);
            }
            image.close()?;
        }
        Format::Qcow2 => {}
    }
    Ok(None)
}

/// What a size argument asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    To(u64),
    Add(u64),
    Subtract(u64),
}

impl Change {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (make, number): (fn(u64) -> Self, _) = match text.as_bytes().first() {
            Some(b'+') => (Self::Add, &text[1..]),
            Some(b'-') => (Self::Subtract, &text[1..]),
            _ => (Self::To, text),
        };
        Ok(make(option_size("size", number)?))
    }

    fn apply(self, old: u64) -> anyhow::Result<u64> {
        let new = match self {
            Self::To(size) => Some(size),
            Self::Add(more) => old.checked_add(more),
            Self::Subtract(less) => Some(old.saturating_sub(less)),
        };
        match new {
            Some(0) => bail!("New image size must be positive"),
            Some(new) if i64::try_from(new).is_ok() => Ok(new),
            _ => Err(anyhow!("Invalid image size specified")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_make_a_size_relative() {
        let new = |text: &str| {
            Change::parse(text).and_then(|change| change.apply(4096)).map_err(|e| e.to_string())
        };
        assert_eq!(new("8k"), Ok(8192));
        assert_eq!(new("+4k"), Ok(8192));
        assert_eq!(new("-1k"), Ok(3072));
        assert_eq!(new("+0"), Ok(4096));
        assert_eq!(new("-4k"), Err("New image size must be positive".into()));
        assert_eq!(new("-1G"), Err("New image size must be positive".into()));
        assert_eq!(new("+-1"), Err("Value '-1' is out of range for parameter 'size'".into()));
        assert_eq!(new("+9223372036854775807"), Err("Invalid image size specified".into()));
        assert!(new("foo").is_err() && new("+").is_err() && new("").is_err());
    }
}
