//! `info`: what an image says about itself.

mod encryption;
mod human;
mod json;
mod report;

use std::collections::HashSet;
use std::ffi::OsString;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::app::Context;
use crate::args::{OutputFormat, Refused, one_name};
use crate::chain::ChainArgs;
use crate::failure::{Exit, shown};
use crate::image_name::{ImageName, NameArgs};
use crate::open::{ForeignImage, OpenHow, could_not_open, describe_image, open_file};
use report::ImageReport;

/// Show what an image says about itself.
///
/// Opens the image alone; its backing file only with --backing-chain, and a data file never. An image
/// that cannot be opened, being encrypted or of another format, is told of as far as it is known.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct InfoArgs {
    /// Format of the image; without it QED and QCOW2 are recognised by their first bytes
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    /// Show the backing files too
    #[arg(short, long)]
    backing_chain: bool,
    #[command(flatten)]
    chain: ChainArgs,
    /// Take no lock: the image may be in use
    #[arg(short = 'U', long)]
    force_share: bool,
    /// human (the default) or json
    #[arg(long, value_name = "OFMT")]
    output: Option<OsString>,
    /// The image
    #[arg(value_name = "FILENAME")]
    operands: Vec<OsString>,
    #[command(flatten)]
    named: NameArgs,
    #[command(flatten)]
    refused: Refused,
}

const NOTES: &str = "\
Examples:
  qed info disk.qed
  qed info --output=json --backing-chain overlay.qed

Exit codes:
  0  the image was read
  1  any error";

pub(crate) fn run(args: InfoArgs, context: &Context) -> anyhow::Result<Exit> {
    args.refused.check()?;
    let output = OutputFormat::parse(args.output.as_deref())?;
    let name = one_name(args.operands)?;
    let name = args.named.image(&name, args.format.as_deref())?;
    let levels =
        Levels { unlocked: args.force_share, chain: args.chain, whole_chain: args.backing_chain };
    let reports = levels.collect(&name)?;
    match output {
        OutputFormat::Human => context.console.print(human::text(&reports))?,
        OutputFormat::Json => {
            let mut out = context.console.lock();
            json::write(&mut out, &reports, args.backing_chain)?;
        }
    }
    Ok(Exit::SUCCESS)
}

/// How far down the chain to look, and how.
struct Levels {
    unlocked: bool,
    chain: ChainArgs,
    whole_chain: bool,
}

impl Levels {
    /// The reports, the image that was asked about first.
    fn collect(&self, name: &ImageName) -> anyhow::Result<Vec<ImageReport>> {
        let how = OpenHow::read(self.unlocked);
        let (mut reports, mut seen) = (Vec::new(), HashSet::new());
        let mut next = match describe_image(name, how) {
            Ok(image) => Some(image),
            Err(error) => return Ok(vec![foreign(name, how, error)?]),
        };
        while let Some(image) = next.take() {
            if !seen.insert(image.identity()) {
                bail!("Backing file '{}' creates an infinite loop.", shown(image.path()));
            }
            if self.whole_chain {
                next = self.chain.open_next(&image, reports.len(), how)?;
            }
            reports.push(ImageReport::of(&image)?);
        }
        Ok(reports)
    }
}

/// What is told of an image in a format that is not supported; any other error stays one.
fn foreign(name: &ImageName, how: OpenHow, error: anyhow::Error) -> anyhow::Result<ImageReport> {
    let Some(&ForeignImage { format }) = error.downcast_ref() else {
        return Err(error);
    };
    let storage = open_file(name, how)?;
    let report = ImageReport::of_file(name.path(), &storage, format);
    report.with_context(|| could_not_open(name.given()))
}
