//! `commit`: what an overlay holds goes into an image of its backing chain.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use qed_convert::ConvertOptions;
use qed_convert::chain::Layer;
use qed_convert::commit::{CommitBase, commit};
use qed_io::{ImageLock, Storage};

use crate::app::Context;
use crate::args::{CacheMode, Format, refuse_qcow2};
use crate::chain::{ChainArgs, Disk};
use crate::failure::{Exit, shown, unsupported};
use crate::image_name::{ImageArgs, ImageName};
use crate::names::beside;
use crate::open::{OpenHow, WITHOUT_MAGIC, could_not_open, open_image, storage_of};
use crate::work::{Work, WorkArgs};

/// Write what an overlay holds into its backing file.
///
/// The overlay itself is not changed.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Image of the backing chain to write to, instead of the first backing file
    #[arg(short, long, value_name = "BASE_IMG")]
    base: Option<OsString>,
    #[command(flatten)]
    chain: ChainArgs,
    /// Do not empty the image, which is never done for QED images
    #[arg(short, long)]
    drop: bool,
    /// Cache mode of the image
    #[arg(short = 't', long, value_name = "CACHE")]
    cache: Option<OsString>,
    /// Limit of bytes per second: not supported yet
    #[arg(short, long, value_name = "RATE", hide = true)]
    rate: Option<OsString>,
    #[command(flatten)]
    work: WorkArgs,
}

const NOTES: &str = "\
Examples:
  qed commit -f qed --backing-format qed overlay.qed
  qed commit -f qed --backing-format qed --backing-format raw -b base.raw top.qed

Exit codes:
  0  the backing file holds everything
  1  any error";

pub(crate) fn run(args: CommitArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    if args.rate.is_some() {
        return Err(unsupported("the option '--rate'"));
    }
    let name = args.image.given()?;
    let cache = CacheMode::parse(args.cache.as_deref(), "Invalid cache option")?;
    let how = OpenHow { cache, ..OpenHow::read(false) };
    let image = open_image(&args.image.named()?, how)?;
    refuse_qcow2(image.format(), "committing")?;
    // The base is about to be locked for writing, so locks below come one by one.
    let disk = args.chain.open_over(image, OpenHow { unlocked: true, ..how }, None);
    let disk = disk.with_context(|| could_not_open(name))?;
    let depth = depth_of(args.base.as_deref(), &disk)?;
    commit_to(&args, &disk, depth, cache, context)?;
    if !args.work.quiet {
        context.console.print("Image committed.\n")?;
    }
    Ok(Exit::SUCCESS)
}

/// Which image of the chain takes the data.
fn depth_of(base: Option<&OsStr>, disk: &Disk) -> anyhow::Result<usize> {
    let (top, below) = disk.layers.split_first().expect("a chain has a top");
    if below.is_empty() {
        bail!("Image does not have a backing file");
    }
    let Some(base) = base else { return Ok(1) };
    let path = beside(top.path(), base.as_bytes());
    let is_base = |layer: &Layer| layer.path() == base || layer.path() == path;
    let depth = below.iter().position(is_base);
    depth.map(|above| above + 1).ok_or_else(|| {
        let (base, name) = (shown(base), shown(top.path()));
        anyhow!("Did not find '{base}' in the backing chain of '{name}'")
    })
}

fn commit_to(
    args: &CommitArgs,
    disk: &Disk,
    depth: usize,
    cache: CacheMode,
    context: &Context,
) -> anyhow::Result<()> {
    let layer = &disk.layers[depth];
    if layer.is_recognised() && layer.format() == Format::Raw {
        bail!("{}: {WITHOUT_MAGIC} (--backing-format raw)", could_not_open(layer.path().as_ref()));
    }
    refuse_qcow2(layer.format(), "committing to")?;
    args.chain.refuse_far(&disk.layers[0], layer)?;
    let format = OsString::from(layer.format().name());
    let how = OpenHow { cache, ..OpenHow::WRITE };
    let base = open_image(&ImageName::plain(layer.path().as_os_str(), Some(&format))?, how)?;
    for between in &disk.layers[1..depth] {
        between.storage().lock(ImageLock::READ)?;
    }
    let number = u32::try_from(depth)?;
    let work = Work::start_writing(context, args.work)?;
    let options = ConvertOptions::default();
    match layer.format() {
        Format::Qed => {
            let below = args.chain.below(depth);
            let image = below.writable(&base, OpenHow::read(false))?;
            let done = commit(&*disk.disk, number, CommitBase::Qed(&image), &options, &work);
            work.finish(done)?;
            image.close()?;
        }
        Format::Raw | Format::Qcow2 => {
            let target = CommitBase::Raw(storage_of(&base));
            let done = commit(&*disk.disk, number, target, &options, &work);
            work.finish(done)?;
        }
    }
    Ok(())
}
