//! `measure`: how large the file of a new image would be.

use std::ffi::{OsStr, OsString};

use anyhow::bail;
use clap::Args;
use qed_convert::chain::{Layer, LayerHeader};
use qed_convert::measure::{Measure, MeasureTarget, measure, measure_size, qcow2_bitmaps_len};
use qed_convert::qcow2::{Qcow2SnapshotSelector, Qcow2Version};
use serde_json::json;

use crate::app::Context;
use crate::args::{
    Format, OptionList, OutputFormat, ReportArgs, number_in, parse_snapshot, parse_target,
};
use crate::chain::ChainArgs;
use crate::failure::Exit;
use crate::image_name::NameArgs;
use crate::new_image::{NewImage, print_options};
use crate::open::{OpenHow, could_not_open, open_image, open_qcow2_alone};
use crate::output::write_json;

/// Calculate the file size of a new image.
///
/// For an image of a given size, or for what converting an existing image would make.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct MeasureArgs {
    /// Format of the new image: raw (the default), qed or qcow2
    #[arg(short = 'O', long, value_name = "FMT")]
    target_format: Option<OsString>,
    /// Options of the new image's format
    #[arg(short, long, value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// Size of the virtual disk
    #[arg(short, long, value_name = "SIZE")]
    size: Option<OsString>,
    /// Format of the existing image
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    #[command(flatten)]
    chain: ChainArgs,
    /// Internal snapshot of the existing image to measure
    #[arg(short = 'l', long, value_name = "SNAPSHOT")]
    snapshot: Option<OsString>,
    #[command(flatten)]
    report: ReportArgs,
    /// The existing image
    #[arg(value_name = "FILENAME")]
    operands: Vec<OsString>,
    #[command(flatten)]
    named: NameArgs,
}

const NOTES: &str = "\
Examples:
  qed measure -O qed --size 64G
  qed measure -f raw -O qcow2 disk.raw

Sizes of a volume:
  A block device of the required size holds the image and not one cluster more.
  One of the fully allocated size never runs out of space: it has room for all
  that the virtual disk can hold. Between the two the image grows until a write
  fails with \"no space\", or until the device is made larger.

Exit codes:
  0  the sizes were printed
  1  any error";

pub(crate) fn run(args: MeasureArgs, context: &Context) -> anyhow::Result<Exit> {
    args.named.refused.check()?;
    let output = args.report.format()?;
    let size = args.size.as_deref();
    let size = size.map(|size| number_in(size, "image size", 0..=i64::MAX as u64)).transpose()?;
    if args.operands.len() > 1 {
        bail!("At most one filename argument is allowed.");
    }
    let name = args.operands.first();
    if name.is_none() && (args.format.is_some() || args.snapshot.is_some()) {
        bail!("--image-opts, -f, and -l require a filename argument.");
    }
    let target = args.target_format.as_deref().unwrap_or(OsStr::new("raw"));
    let list = OptionList::parse(&args.options)?;
    if list.asks_for_help() {
        print_options(&context.console, parse_target(target)?)?;
        return Ok(Exit::SUCCESS);
    }
    let (measured, bitmaps) = match (name, size) {
        (None, None) => bail!("Either --size N or one filename must be specified."),
        (Some(_), Some(_)) => bail!("--size N cannot be used together with a filename."),
        (None, Some(size)) => {
            (measure_size(size.next_multiple_of(512), &measure_target(target, list)?)?, None)
        }
        (Some(name), None) => {
            let snapshot = args.snapshot.as_deref().map(parse_snapshot).transpose()?;
            measure_image(&args, name, snapshot.as_ref(), &measure_target(target, list)?)?
        }
    };
    let (required, all) = (measured.required, measured.fully_allocated);
    match output {
        OutputFormat::Human => {
            let bitmaps = bitmaps.map(|len| format!("bitmaps size: {len}\n")).unwrap_or_default();
            let sizes = format!("required size: {required}\nfully allocated size: {all}\n");
            context.console.print(sizes + &bitmaps)?;
        }
        OutputFormat::Json => {
            let sizes = json!({ "bitmaps": bitmaps, "required": required, "fully-allocated": all });
            write_json(context.console.lock(), sizes)?;
        }
    }
    Ok(Exit::SUCCESS)
}

fn measure_target(format: &OsStr, list: OptionList) -> anyhow::Result<MeasureTarget> {
    let image = NewImage::new(parse_target(format)?, list)?;
    Ok(match image.format {
        Format::Raw => MeasureTarget::Raw,
        Format::Qed => MeasureTarget::Qed { geometry: image.geometry()?, layout: image.layout()? },
        Format::Qcow2 => MeasureTarget::Qcow2(image.qcow2(0, None)?),
    })
}

fn measure_image(
    args: &MeasureArgs,
    name: &OsStr,
    snapshot: Option<&Qcow2SnapshotSelector>,
    target: &MeasureTarget,
) -> anyhow::Result<(Measure, Option<u64>)> {
    let how = OpenHow::read(args.report.force_share);
    let image = open_image(&args.named.image(name, args.format.as_deref())?, how)?;
    let disk = args
        .chain
        .open_over(image, how, snapshot)
        .map_err(|error| error.context(could_not_open(name)))?;
    let bitmaps = match target {
        MeasureTarget::Qcow2(options) if options.version == Qcow2Version::V3 => {
            bitmaps_len(&disk.layers[0], options.cluster_len)?
        }
        _ => None,
    };
    Ok((measure(&*disk.disk, target)?, bitmaps))
}

/// Bytes that the bitmaps of an image would take, if its format has any.
fn bitmaps_len(image: &Layer, cluster_len: u32) -> anyhow::Result<Option<u64>> {
    let LayerHeader::Qcow2(header) = image.header() else { return Ok(None) };
    if header.version() < 3 {
        return Ok(None);
    }
    let bitmaps = open_qcow2_alone(image)?.read_bitmaps()?;
    Ok(Some(qcow2_bitmaps_len(&bitmaps, header.image_size(), cluster_len)))
}
