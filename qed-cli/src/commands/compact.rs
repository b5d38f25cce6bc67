//! `compact`: a shorter file for the same image.

use std::ffi::OsString;

use anyhow::Context as _;
use clap::Args;
use qed_core::CompactOptions;

use crate::app::Context;
use crate::args::{Format, OutputFormat};
use crate::chain::ChainArgs;
use crate::compaction::compact_and_close;
use crate::failure::{Exit, shown, unsupported};
use crate::image_name::ImageArgs;
use crate::open::{OpenHow, could_not_open, open_image};
use crate::output::write_json;
use crate::work::{Work, WorkArgs};

/// Move what an image stores into its free space, and cut the file behind it.
///
/// Free is what the guest discarded, what a smaller disk does not need any more, and what a crash left
/// without a use.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct CompactArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Lay the data out in the order of the virtual disk as well. It is copied twice, and the file takes
    /// up to twice its space meanwhile
    #[arg(long)]
    defragment: bool,
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    work: WorkArgs,
    /// human (the default) or json
    #[arg(long, value_name = "OFMT")]
    output: Option<OsString>,
}

const NOTES: &str = "\
What was moved when a signal ends it, or a crash, is moved; another call goes on from there. An image
that is served is compacted beside its clients when its server gets SIGUSR2: qed help serve.

Examples:
  qed compact -f qed disk.qed
  qed compact -p --defragment -f qed disk.qed

Exit codes:
  0  done
  1  any error; the image is whole";

pub(crate) fn run(args: CompactArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    let output = OutputFormat::parse(args.output.as_deref())?;
    let name = args.image.given()?;
    let image = open_image(&args.image.named()?, OpenHow::WRITE)?;
    if image.format() != Format::Qed {
        return Err(unsupported(format_args!("compacting a {} image", image.format())));
    }
    let work = Work::start_writing(context, args.work)?;
    let open = || {
        let writable = args.chain.writable(&image, OpenHow::read(false));
        writable.with_context(|| could_not_open(name))
    };
    let options = CompactOptions { defragment: args.defragment };
    let outcome = compact_and_close(open()?, open, options, work)
        .with_context(|| format!("Could not compact '{}'", shown(name)))?;
    match output {
        _ if args.work.quiet => {}
        OutputFormat::Human => context.console.print(outcome.text())?,
        OutputFormat::Json => write_json(context.console.lock(), outcome.json())?,
    }
    Ok(Exit::SUCCESS)
}
