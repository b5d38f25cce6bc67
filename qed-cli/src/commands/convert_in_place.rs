//! `convert-in-place`: another format for the same file, without a copy of its data.

mod print;
mod way_back;

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use qed_convert::chain::{FormatSource, Layer};
use qed_convert::in_place::{ToQed, ToQedOptions, finalize, undo};
use qed_core::{CompactOptions, VirtualDisk};
use qed_io::{FileStorage, Storage};

use crate::app::Context;
use crate::args::{Format, OutputFormat, one_name, parse_driver};
use crate::chain::ChainArgs;
use crate::compaction::compact_and_close;
use crate::failure::{Exit, shown, usage};
use crate::image_name::{ImageName, NameArgs};
use crate::new_image::random_identity;
use crate::open::{OpenHow, open_file, open_image};
use crate::pending;
use crate::work::{Work, WorkArgs};

/// Give an image file another format and leave its data where it is.
///
/// A QCOW2 image becomes a QED image in the time it takes to write its tables. Until somebody
/// writes to it, --undo makes it the QCOW2 image that it was, byte for byte. A QED image becomes a
/// QCOW2 image, a raw file becomes a QED image, and a QED image that was a raw file becomes one again.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct ConvertInPlaceArgs {
    /// Format of the image now; without it QED and QCOW2 are recognised by their first bytes
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    /// The format that it gets: qed (the default), qcow2 or raw
    #[arg(long, value_name = "FMT")]
    to: Option<OsString>,
    /// Make it what it was before the conversion
    #[arg(long)]
    undo: bool,
    /// Give up what --undo needs
    #[arg(long)]
    finalize: bool,
    /// With --finalize: compact the image afterwards, so that what only --undo needed leaves the file
    #[arg(long)]
    compact: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Append compressed clusters uncompressed, which is what is done anyway
    #[arg(long)]
    decompress: bool,
    /// Let internal snapshots go; --undo brings them back
    #[arg(long)]
    drop_snapshots: bool,
    #[command(flatten)]
    chain: ChainArgs,
    /// Show progress
    #[arg(short, long)]
    progress: bool,
    /// human (the default) or json
    #[arg(long, value_name = "OFMT")]
    output: Option<OsString>,
    /// Print nothing but errors and warnings
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "FILENAME")]
    operands: Vec<OsString>,
    #[command(flatten)]
    named: NameArgs,
}

const NOTES: &str = "\
A crash at any moment leaves the image in one of the two formats, whole. Where snapshots or bitmaps
were let go, QEMU opens the image only after the first write by qed, or --finalize. Overlays that name the
image as qcow2 are to be told: qed rebase -u -f FMT -b IMAGE -F qed OVERLAY.

Examples:
  qed convert-in-place --dry-run disk.qcow2
  qed convert-in-place --to qed disk.qcow2
  qed convert-in-place -f qed --to qcow2 disk.qed
  qed convert-in-place -f raw --to qed disk.raw
  qed convert-in-place --undo disk.qcow2
  qed convert-in-place --finalize --compact disk.qcow2

Exit codes:
  0  done
  1  any error; the image is what it was";

impl ConvertInPlaceArgs {
    fn work(&self) -> WorkArgs {
        WorkArgs { progress: self.progress, quiet: self.quiet }
    }
}

pub(crate) fn run(args: ConvertInPlaceArgs, context: &Context) -> anyhow::Result<Exit> {
    args.named.refused.check()?;
    let output = OutputFormat::parse(args.output.as_deref())?;
    let name = one_name(&args.operands)?;
    let to = args.to.as_deref().map(parse_driver).transpose()?;
    let form = print::Form { output, quiet: args.quiet };
    if args.undo || args.finalize {
        let others = [args.dry_run, args.decompress, args.drop_snapshots];
        let for_compacting = args.progress || args.chain.is_given();
        if (args.undo && args.finalize)
            || to.is_some()
            || others.contains(&true)
            || for_compacting && !args.compact
        {
            return Err(usage(
                "--undo and --finalize take no option but -q and --output, and --compact",
            ));
        }
        if args.finalize {
            return for_good(&args, name, form, context);
        }
    }
    if args.compact {
        return Err(usage("--compact is for --finalize"));
    }
    if args.undo {
        return go_back(&args, name, form, context);
    }
    match to.unwrap_or(Format::Qed) {
        Format::Qed => to_qed(&args, name, form, context),
        Format::Qcow2 => way_back::to_qcow2(&args, name, form, context),
        Format::Raw => way_back::to_raw(&args, name, form, context),
    }
}

fn to_qed(
    args: &ConvertInPlaceArgs,
    name: &OsStr,
    form: print::Form,
    context: &Context,
) -> anyhow::Result<Exit> {
    let how = if args.dry_run { OpenHow::read(false) } else { OpenHow::WRITE };
    let named = args.named.image(name, args.format.as_deref())?;
    let image = open_image(&named, how).map_err(hint_at_overlays)?;
    match image.format() {
        Format::Qcow2 => {}
        Format::Qed => bail!("'{}' is a QED image already", shown(name)),
        Format::Raw => {
            refuse_qcow2_options(args)?;
            drop(image);
            return way_back::from_raw(args, name, form, context);
        }
    }
    refuse_other_names(name, image.path())?;
    let options =
        ToQedOptions { drop_snapshots: args.drop_snapshots, identity: random_identity()? };
    let storage = crate::open::storage_of(&image);
    let start = Instant::now();
    let conversion = ToQed::plan(storage, &options).with_context(|| could_not_convert(name))?;
    let plan = conversion.report().clone();
    for dropped in &plan.dropped {
        context.console.error(&format!("warning: the QED image will not have {dropped}"));
    }
    if args.dry_run {
        form.plan(&context.console, &plan, name, None)?;
        return Ok(Exit::SUCCESS);
    }
    let backing = if plan.needs_backing { Some(backing_of(args, image)?) } else { None };
    let work = Work::start_writing(context, args.work())?;
    let converted = conversion.convert(backing.as_ref());
    work.finish(converted).with_context(|| could_not_convert(name))?;
    form.plan(&context.console, &plan, name, Some(start.elapsed()))?;
    Ok(Exit::SUCCESS)
}

/// The disk below the image, of which some clusters are copied.
fn backing_of(args: &ConvertInPlaceArgs, image: Layer) -> anyhow::Result<Arc<dyn VirtualDisk>> {
    let opened = args.chain.below_image(image)?;
    opened.context("the image names no backing file")
}

/// The image that is named, and its file, open for writing.
fn opened(
    args: &ConvertInPlaceArgs,
    name: &OsStr,
) -> anyhow::Result<(ImageName, Arc<FileStorage>)> {
    let named = args.named.image(name, args.format.as_deref())?;
    let file = open_file(&named, OpenHow::WRITE).map_err(hint_at_overlays)?;
    pending::take_over_file(named.path(), &file)?;
    Ok((named, file))
}

fn go_back(
    args: &ConvertInPlaceArgs,
    name: &OsStr,
    form: print::Form,
    context: &Context,
) -> anyhow::Result<Exit> {
    let (_, file) = opened(args, name)?;
    let storage: Arc<dyn Storage> = file;
    let start = Instant::now();
    context.interrupts.defer();
    undo(&storage)
        .with_context(|| format!("Could not undo the conversion of '{}'", shown(name)))?;
    form.done(&context.console, name, "is the QCOW2 image that it was", start.elapsed(), None)?;
    Ok(Exit::SUCCESS)
}

/// Gives up what `--undo` needs, which is free space of the image then, and compacts it if asked to.
fn for_good(
    args: &ConvertInPlaceArgs,
    name: &OsStr,
    form: print::Form,
    context: &Context,
) -> anyhow::Result<Exit> {
    let (named, file) = opened(args, name)?;
    let storage: Arc<dyn Storage> = Arc::<FileStorage>::clone(&file);
    let start = Instant::now();
    let work = Work::start_writing(context, args.work())?;
    finalize(&storage).with_context(|| format!("Could not finalize '{}'", shown(name)))?;
    let compacted = if args.compact {
        let layer = Layer::from_storage(named.path(), file, FormatSource::Stated(Format::Qed))?;
        let open = || args.chain.writable(&layer, OpenHow::read(false));
        let compacted = compact_and_close(open()?, open, CompactOptions::default(), work);
        Some(compacted.with_context(|| format!("Could not compact '{}'", shown(name)))?)
    } else {
        None
    };
    form.done(&context.console, name, "is a QED image for good", start.elapsed(), compacted)?;
    Ok(Exit::SUCCESS)
}

/// No option is ignored.
fn refuse_qcow2_options(args: &ConvertInPlaceArgs) -> anyhow::Result<()> {
    for (given, name) in
        [(args.decompress, "--decompress"), (args.drop_snapshots, "--drop-snapshots")]
    {
        if given {
            return Err(usage(format!("{name} is about QCOW2 images that become QED images")));
        }
    }
    Ok(())
}

/// A file with other names has other users, who know it by its old format.
fn refuse_other_names(name: &OsStr, path: &Path) -> anyhow::Result<()> {
    let names = std::fs::metadata(path)?.nlink();
    if names > 1 {
        bail!(
            "'{}' has {names} names (hard links): the file would get another format under all of \
             them; remove the others, or use qed convert",
            shown(name)
        );
    }
    Ok(())
}

fn hint_at_overlays(error: anyhow::Error) -> anyhow::Error {
    match error.chain().any(|cause| cause.to_string().contains("another process using")) {
        true => error.context("The image, or an overlay of it, is open elsewhere"),
        false => error,
    }
}

fn could_not_convert(name: &OsStr) -> String {
    format!("Could not convert '{}' in place", shown(name))
}
