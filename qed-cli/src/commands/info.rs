//! `info`: what an image says about itself.

mod encryption;
mod human;
mod json;
mod owner;
mod report;
mod space;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use crate::app::Context;
use crate::args::{OutputFormat, ReportArgs};
use crate::chain::ChainArgs;
use crate::failure::Exit;
use crate::image_name::{ImageArgs, ImageName};
use crate::open::{ForeignImage, OpenHow, could_not_open, describe_image, open_file};
use crate::output::write_json;
use report::ImageReport;

/// Show what an image says about itself.
///
/// Opens the image alone; its backing file only with --backing-chain, and a data file never. An image
/// that cannot be opened, being encrypted or of another format, is told of as far as it is known.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Show the backing files too
    #[arg(short, long)]
    backing_chain: bool,
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    report: ReportArgs,
}

const NOTES: &str = "\
Examples:
  qed info disk.qed
  qed info --output=json --backing-chain overlay.qed

Exit codes:
  0  the image was read
  1  any error";

pub(crate) fn run(args: InfoArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    let output = args.report.format()?;
    let name = args.image.named()?;
    let is_list = args.backing_chain;
    let levels = Levels {
        unlocked: args.report.force_share,
        chain: args.chain,
        whole_chain: args.backing_chain,
    };
    let reports = levels.collect(&name)?;
    match output {
        OutputFormat::Human => context.console.print(human::text(&reports))?,
        OutputFormat::Json => {
            let mut images: Vec<Value> = reports.iter().map(json::image).collect();
            let report =
                if is_list { Value::Array(images) } else { images.pop().unwrap_or_default() };
            write_json(context.console.lock(), report)?;
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
        let image = match describe_image(name, how) {
            Ok(image) => image,
            Err(error) => return Ok(vec![foreign(name, how, error)?]),
        };
        let layers = match self.whole_chain {
            true => self.chain.layers(image, how)?,
            false => vec![image],
        };
        layers.iter().map(ImageReport::of).collect()
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
