//! `compare`: do two images hold the same virtual disk.

use std::ffi::OsString;

use clap::Args;
use qed_convert::compare::{CompareOptions, Comparison, compare};

use crate::app::Context;
use crate::args::CacheMode;
use crate::chain::{ChainArgs, Disk};
use crate::failure::{Exit, Interrupted, UsageError, error_text, usage};
use crate::image_name::NameArgs;
use crate::open::OpenHow;
use crate::work::{Work, WorkArgs};

/// Compare the content of two images.
///
/// Unless --strict is given the longer disk may have zeros past the end of the shorter one.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct CompareArgs {
    /// Format of the first image
    #[arg(short = 'f', long, value_name = "FMT")]
    a_format: Option<OsString>,
    /// Format of the second image
    #[arg(short = 'F', long, value_name = "FMT")]
    b_format: Option<OsString>,
    #[command(flatten)]
    chain: ChainArgs,
    /// Sizes and allocation have to be equal too
    #[arg(short, long)]
    strict: bool,
    /// Cache mode of both images
    #[arg(short = 'T', long, value_name = "CACHE")]
    cache: Option<OsString>,
    /// Take no locks: the images may be in use
    #[arg(short = 'U', long)]
    force_share: bool,
    #[command(flatten)]
    work: WorkArgs,
    /// The two images
    #[arg(value_name = "FILENAME")]
    operands: Vec<OsString>,
    #[command(flatten)]
    named: NameArgs,
}

const NOTES: &str = "\
What is said about backing files holds for both images.

Examples:
  qed compare -f raw -F qed disk.raw disk.qed
  qed compare -s -f qed -F qed a.qed b.qed

Exit codes:
  0  the images are identical
  1  they differ; also a wrong command line
  2  an image could not be opened or read";

/// An image could not be opened or read.
const TROUBLE: Exit = Exit(2);
const DIFFERENT: Exit = Exit(1);

pub(crate) fn run(args: CompareArgs, context: &Context) -> anyhow::Result<Exit> {
    args.named.refused.check()?;
    let result = compare_images(&args, context);
    result.or_else(|error| match error {
        error if error.is::<UsageError>() || error.is::<Interrupted>() => Err(error),
        error => {
            context.console.error(&error_text(&error));
            Ok(TROUBLE)
        }
    })
}

fn compare_images(args: &CompareArgs, context: &Context) -> anyhow::Result<Exit> {
    let cache = CacheMode::parse(args.cache.as_deref(), "Invalid source cache option")?;
    let [first, second] = args.operands.as_slice() else {
        return Err(usage("Expecting two image file names"));
    };
    let how = OpenHow { cache, ..OpenHow::read(args.force_share) };
    let first = args.chain.open(&args.named.image(first, args.a_format.as_deref())?, how)?;
    let second = args.chain.open(&args.named.image(second, args.b_format.as_deref())?, how)?;
    let options = CompareOptions { strict: args.strict, ..CompareOptions::default() };
    let work = Work::start(context, args.work)?;
    let found = compare(&*first.disk, &*second.disk, &options, &work);
    let found = work.finish(found)?;
    if !args.work.quiet {
        context.console.print(verdict(found, args.strict, &first, &second))?;
    }
    Ok(if found == Comparison::Identical { Exit::SUCCESS } else { DIFFERENT })
}

fn verdict(found: Comparison, strict: bool, first: &Disk, second: &Disk) -> String {
    let lens = [first.disk.len(), second.disk.len()];
    let shorter = lens[0].min(lens[1]);
    let warning = match found {
        // What differs before the end of both is all there is to say.
        Comparison::ContentDiffers { offset } if offset < shorter => "",
        _ if strict || lens[0] == lens[1] => "",
        _ => "Warning: Image size mismatch!\n",
    };
    let verdict = match found {
        Comparison::Identical => "Images are identical.".to_owned(),
        Comparison::SizesDiffer => "Strict mode: Image size mismatch!".to_owned(),
        Comparison::ContentDiffers { offset } => format!("Content mismatch at offset {offset}!"),
        Comparison::MappingDiffers { offset } => {
            format!("Strict mode: Offset {offset} block status mismatch!")
        }
    };
    format!("{warning}{verdict}\n")
}
