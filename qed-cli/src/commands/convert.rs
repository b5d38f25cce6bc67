//! `convert`: the content of images as a new image, perhaps of another format.

mod settings;
mod source;
mod target;

use std::ffi::OsString;

use anyhow::bail;
use clap::Args;

use crate::app::Context;
use crate::chain::ChainArgs;
use crate::failure::Exit;
use crate::image_name::NameArgs;
use crate::work::WorkArgs;
use settings::Settings;

/// Copy one or more images to a new one, perhaps of another format.
///
/// Zeros become holes. Several inputs are joined. The name - stands for raw data on standard input
/// or standard output.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct ConvertArgs {
    /// Format of the inputs
    #[arg(short = 'f', long, value_name = "FMT")]
    source_format: Option<OsString>,
    /// Format of the output: raw (the default), qed or qcow2
    #[arg(short = 'O', long, value_name = "FMT")]
    target_format: Option<OsString>,
    /// Options of the output's format, separated by commas; 'help' lists them
    #[arg(short = 'o', long, value_name = "OPTIONS")]
    target_options: Vec<OsString>,
    #[command(flatten)]
    chain: ChainArgs,
    /// Internal snapshot of the input to read
    #[arg(short = 'l', long, value_name = "SNAPSHOT")]
    source_snapshot: Option<OsString>,
    /// Backing file of the output, with the same content as that of the input
    #[arg(short = 'B', long, value_name = "BACKING_FILENAME")]
    backing: Option<OsString>,
    /// Format of the output's backing file
    #[arg(short = 'F', value_name = "BACKING_FMT")]
    new_backing_format: Option<OsString>,
    /// Write to an image that exists instead of making one
    #[arg(short, long)]
    no_create: bool,
    /// The existing output holds zeros only
    #[arg(long)]
    target_is_zero: bool,
    /// Compress the output: qcow2 only
    #[arg(short, long)]
    compress: bool,
    /// Least bytes of zeros that become a hole; 0 allocates everything
    #[arg(short = 'S', long, value_name = "SPARSE_SIZE")]
    sparse_size: Option<OsString>,
    /// Threads, 1 to 16
    #[arg(short = 'm', long, value_name = "NUM")]
    parallel: Option<OsString>,
    /// Let threads write out of order
    #[arg(short = 'W', long)]
    oob_writes: bool,
    /// Write zeros for what cannot be read
    #[arg(long)]
    salvage: bool,
    /// Bytes of data to write a second at most; 0 for no limit
    #[arg(short, long, value_name = "RATE")]
    rate: Option<OsString>,
    /// Cache mode of the inputs
    #[arg(short = 'T', long, value_name = "CACHE")]
    source_cache: Option<OsString>,
    /// Cache mode of the output; with unsafe it is not flushed
    #[arg(short = 't', long, value_name = "CACHE")]
    target_cache: Option<OsString>,
    /// Take no locks on the inputs
    #[arg(short = 'U', long)]
    force_share: bool,
    #[command(flatten)]
    work: WorkArgs,
    /// Share data with the inputs where the file system can: the default; not with -S or -c
    #[arg(short = 'C', long)]
    copy_range_offloading: bool,
    /// Copy data though the file system could share it
    #[arg(long, conflicts_with = "copy_range_offloading")]
    no_reflink: bool,
    #[command(flatten)]
    later: LaterOptions,
    /// The inputs, then the output
    #[arg(value_name = "FILENAME")]
    operands: Vec<OsString>,
    /// With -n: the output is named by options
    #[arg(long)]
    target_image_opts: bool,
    #[command(flatten)]
    named: NameArgs,
}

/// Options that are known in order to be refused.
#[derive(Debug, Args)]
struct LaterOptions {
    #[arg(long, hide = true)]
    bitmaps: bool,
    #[arg(long, hide = true)]
    skip_broken_bitmaps: bool,
}

const NOTES: &str = "\
Examples:
  qed convert -f qcow2 -O qed disk.qcow2 disk.qed
  qed convert -p -f raw -O qed -o cluster_size=1M disk.raw disk.qed
  qed convert -f qed --backing-format raw -O raw overlay.qed disk.raw
  zcat disk.raw.gz | qed convert -f raw -O qed - disk.qed

Exit codes:
  0  the output is complete, and durable unless -t is unsafe
  1  any error: an incomplete output is named, and removed if it was made here";

pub(crate) fn run(args: ConvertArgs, context: &Context) -> anyhow::Result<Exit> {
    args.named.refused.check()?;
    args.later.check()?;
    let Some(settings) = Settings::of(&args, context)? else { return Ok(Exit::SUCCESS) };
    let [inputs @ .., output] = args.operands.as_slice() else {
        bail!("Must specify image file name");
    };
    if inputs.is_empty() {
        bail!("Must specify image file name");
    }
    let source = source::open(&args, &settings, inputs)?;
    source.layers.iter().for_each(|layer| crate::pending::warn_of_waiting(&context.console, layer));
    target::write(&args, &settings, &source, output, context)?;
    Ok(Exit::SUCCESS)
}

impl LaterOptions {
    fn check(&self) -> anyhow::Result<()> {
        if self.skip_broken_bitmaps && !self.bitmaps {
            bail!("Use of --skip-broken-bitmaps requires --bitmaps");
        }
        match self.bitmaps {
            true => Err(crate::failure::unsupported("the option '--bitmaps'")),
            false => Ok(()),
        }
    }
}
