//! `rebase`: another backing file for an overlay.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context as _, bail};
use clap::Args;
use qed_convert::chain::Layer;
use qed_convert::qcow2::{Qcow2Backing, set_qcow2_backing};
use qed_convert::rebase::{RebaseOptions, rebase};
use qed_core::{BackingFormat, CreateBacking, GivenBacking, Image};

use crate::app::Context;
use crate::args::{CacheMode, Format, by_name, refuse_qcow2};
use crate::chain::{ChainArgs, Disk};
use crate::failure::{Exit, error_text, shown, usage};
use crate::image_name::{ImageArgs, ImageName};
use crate::names::beside;
use crate::open::{OpenHow, WriteHow, could_not_open, open_image, try_open_image, writable_qed};
use crate::work::{Work, WorkArgs};

/// Change the backing file of an image.
///
/// The content of the virtual disk stays: clusters that the new backing file would show
/// differently are copied into the image first. With -u only the name is changed, of QCOW2 images too.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct RebaseArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// The new backing file; empty for none
    #[arg(short, long, value_name = "BACKING_FILENAME")]
    backing: Option<OsString>,
    /// Format of the new backing file
    #[arg(short = 'F', value_name = "BACKING_FMT")]
    new_format: Option<OsString>,
    /// Change the name only, whatever the new backing file holds
    #[arg(short = 'u', long)]
    backing_unsafe: bool,
    #[command(flatten)]
    chain: ChainArgs,
    /// Cache mode of the image
    #[arg(short = 't', long, value_name = "CACHE")]
    cache: Option<OsString>,
    /// Cache mode of the backing files
    #[arg(short = 'T', long, value_name = "CACHE")]
    backing_cache: Option<OsString>,
    /// Compress what is copied: not supported yet
    #[arg(short, long)]
    compress: bool,
    /// Take no locks on the backing files
    #[arg(short = 'U', long)]
    force_share: bool,
    #[command(flatten)]
    work: WorkArgs,
}

const NOTES: &str = "\
--backing-format is about the chain below: once for each level, the backing file first. For the
chain below the new backing file it is the second level on.

Examples:
  qed rebase -f qed --backing-format raw -b new.raw -F raw overlay.qed
  qed rebase -f qed -u -b moved.raw -F raw overlay.qed
  qed rebase -f qcow2 -u -b disk.qed -F qed overlay.qcow2
  qed rebase -f qed --backing-format qed -b \"\" overlay.qed

Exit codes:
  0  the image has its new backing file
  1  any error";

pub(crate) fn run(args: RebaseArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    let name = args.image.given()?;
    if args.backing.is_none() && !args.backing_unsafe {
        return Err(usage("Must specify backing file (-b) or use unsafe mode (-u)"));
    }
    let cache = CacheMode::parse(args.cache.as_deref(), "Invalid cache option")?;
    let below_cache =
        CacheMode::parse(args.backing_cache.as_deref(), "Invalid source cache option")?;
    let new_format = args.new_format.as_deref().map(|format| match by_name(format) {
        Some(format) => Ok(format),
        None => bail!("Invalid format name: '{}'", shown(format)),
    });
    let new_format = new_format.transpose()?;
    let named = args.image.named()?;
    let image = open_image(&named, OpenHow { cache, ..OpenHow::WRITE })?;
    if image.format() == Format::Qcow2 && args.backing_unsafe {
        return rename_in_qcow2(&args, &image, name, new_format);
    }
    refuse_qcow2(image.format(), "rebasing")?;
    if args.compress {
        bail!("Compression not supported for this file format");
    }
    let backing = args.backing.as_deref().filter(|backing| !backing.is_empty());
    if image.format() != Format::Qed {
        let backing = shown(backing.unwrap_or_default());
        bail!("Could not change the backing file to '{backing}': Operation not supported");
    }
    let backing = backing.map(|backing| new_backing(backing, new_format)).transpose()?;
    let below = OpenHow { cache: below_cache, ..OpenHow::read(args.force_share) };
    let image = if args.backing_unsafe {
        writable_qed(&image, &GivenBacking(None), WriteHow::default())
            .with_context(|| could_not_open(name))?
    } else {
        copy_differences(&args, &image, name, below, context)?
    };
    image.set_backing(backing.as_ref())?;
    image.close()?;
    Ok(Exit::SUCCESS)
}

/// `-u` on a QCOW2 image: its header names another backing file.
fn rename_in_qcow2(
    args: &RebaseArgs,
    image: &Layer,
    name: &OsStr,
    format: Option<Format>,
) -> anyhow::Result<Exit> {
    let backing = match args.backing.as_deref().filter(|backing| !backing.is_empty()) {
        Some(backing) => {
            let format = format.with_context(|| needs_format(backing))?.name().as_bytes();
            Some(Qcow2Backing { name: backing.as_bytes(), format })
        }
        None => None,
    };
    let shown_backing = shown(args.backing.as_deref().unwrap_or_default());
    set_qcow2_backing(&**image.storage(), backing).with_context(|| {
        format!("Could not change the backing file of '{}' to '{shown_backing}'", shown(name))
    })?;
    Ok(Exit::SUCCESS)
}

fn needs_format(backing: &OsStr) -> String {
    let backing = shown(backing);
    format!("Could not change the backing file to '{backing}': backing format must be specified")
}

fn new_backing(name: &OsStr, format: Option<Format>) -> anyhow::Result<CreateBacking> {
    let format = match format {
        Some(Format::Raw) => BackingFormat::Raw,
        Some(other) => BackingFormat::Named(other.name().to_owned()),
        None => bail!(needs_format(name)),
    };
    Ok(CreateBacking { name: name.as_bytes().to_vec(), format })
}

/// Opens the image and copies what the new backing file would show differently.
fn copy_differences(
    args: &RebaseArgs,
    image: &Layer,
    name: &OsStr,
    below: OpenHow,
    context: &Context,
) -> anyhow::Result<Image> {
    let writable = args.chain.writable(image, below).with_context(|| could_not_open(name))?;
    let new = match args.backing.as_deref().filter(|backing| !backing.is_empty()) {
        Some(backing) => Some(open_new(args, image, backing, below)?),
        None => None,
    };
    let work = Work::start_writing(context, args.work)?;
    let new = new.as_ref().map(|new| &*new.disk);
    let copied = rebase(&writable, new, &RebaseOptions::default(), &work);
    work.finish(copied)?;
    Ok(writable)
}

fn open_new(
    args: &RebaseArgs,
    image: &Layer,
    backing: &OsStr,
    how: OpenHow,
) -> anyhow::Result<Disk> {
    let path = beside(image.path(), backing.as_bytes());
    let opened = ImageName::plain(&path, args.new_format.as_deref())
        .and_then(|new| try_open_image(&new, how))
        .and_then(|new| args.chain.below(1).open_over(new, how, None));
    let disk = opened.map_err(|error| {
        anyhow::anyhow!(
            "Could not open new backing file '{}': {}",
            shown(backing),
            error_text(&error)
        )
    })?;
    if disk.layers.iter().any(|layer| layer.identity() == image.identity()) {
        bail!("Backing file '{}' creates an infinite loop.", shown(backing));
    }
    Ok(disk)
}
