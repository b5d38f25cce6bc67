//! `dd`: a stretch of a virtual disk as a new image.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use anyhow::{anyhow, bail};
use clap::Args;
use qed_convert::ConvertOptions;

use crate::app::Context;
use crate::args::{CacheMode, OptionList, by_name, number_in};
use crate::chain::ChainArgs;
use crate::disks::Window;
use crate::failure::{Exit, error_text, shown};
use crate::image_name::NameArgs;
use crate::new_image::NewImage;
use crate::open::OpenHow;
use crate::output_image::{Copy, copy_to_new};
use crate::work::{Work, WorkArgs};

/// Copy blocks of one image to a new one.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct DdArgs {
    /// Format of the input
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    /// Format of the output: raw (the default), qed or qcow2
    #[arg(short = 'O', long, value_name = "FMT")]
    output_format: Option<OsString>,
    #[command(flatten)]
    chain: ChainArgs,
    /// Take no lock on the input
    #[arg(short = 'U', long)]
    force_share: bool,
    /// if=INPUT of=OUTPUT [bs=BLOCK_SIZE] [count=BLOCKS] [skip=BLOCKS]
    #[arg(value_name = "KEY=VALUE")]
    operands: Vec<OsString>,
    #[command(flatten)]
    named: NameArgs,
}

const NOTES: &str = "\
Blocks have 512 bytes unless bs= says otherwise. count= is the number of blocks that are copied,
skip= the number of blocks of the input that are passed over before. Zeros become holes.

Examples:
  qed dd -f qed -O raw if=disk.qed of=first-gigabyte.raw bs=1M count=1024

Exit codes:
  0  the blocks were copied
  1  any error";

/// What the operands say.
#[derive(Debug, Default)]
struct Blocks {
    input: Option<OsString>,
    output: Option<OsString>,
    block_len: Option<u64>,
    count: Option<u64>,
    skip: u64,
}

pub(crate) fn run(args: DdArgs, context: &Context) -> anyhow::Result<Exit> {
    args.named.refused.check()?;
    let blocks = Blocks::parse(&args.operands)?;
    let (Some(input), Some(output)) = (&blocks.input, &blocks.output) else {
        bail!("Must specify both input and output files");
    };
    let format = args.output_format.as_deref().unwrap_or(OsStr::new("raw"));
    let Some(format) = by_name(format) else { bail!("Unknown file format") };
    let named = args.named.image(input, args.format.as_deref())?;
    let source = args.chain.open(&named, OpenHow::read(args.force_share))?;
    let block_len = blocks.block_len.unwrap_or(512);
    let len = blocks.count.map_or(u64::MAX, |count| count.saturating_mul(block_len));
    let start = blocks.skip.saturating_mul(block_len);
    if start > source.disk.len() {
        let input = shown(input);
        context.console.error(&format!("{input}: cannot skip to specified offset"));
    }
    let window = Window::new(source.disk.clone(), start, len);
    let image = NewImage::new(format, OptionList::default())?;
    let (inputs, cache) = (&source.layers[..], CacheMode::Cached);
    let copy = Copy { image: &image, inputs, cache, backing: None, compress: false };
    let work = Work::start_writing(context, WorkArgs::default())?;
    copy_to_new(&window, output, &copy, &ConvertOptions::default(), work, context).map_err(
        |error| {
            if error.is::<crate::failure::Interrupted>() {
                return error;
            }
            let output = shown(output);
            anyhow!("{output}: error while creating output image: {}", error_text(&error))
        },
    )?;
    Ok(Exit::SUCCESS)
}

impl Blocks {
    fn parse(operands: &[OsString]) -> anyhow::Result<Self> {
        let mut blocks = Self::default();
        for operand in operands {
            let bytes = operand.as_bytes();
            let at = bytes.iter().position(|byte| *byte == b'=');
            let (name, value) = match at {
                Some(at) => (&bytes[..at], OsStr::from_bytes(&bytes[at + 1..])),
                None => (bytes, OsStr::new("")),
            };
            let number = |what, least, most| number_in(value, what, least..=most);
            match name {
                _ if at.is_none() => bail!("unrecognized operand {}", shown(operand)),
                b"if" => blocks.input = Some(value.to_owned()),
                b"of" => blocks.output = Some(value.to_owned()),
                b"bs" => blocks.block_len = Some(number("bs", 1, i32::MAX.unsigned_abs().into())?),
                b"count" => blocks.count = Some(number("count", 0, i64::MAX.unsigned_abs())?),
                b"skip" => blocks.skip = number("skip", 0, i64::MAX.unsigned_abs())?,
                _ => bail!("unrecognized operand {}", shown(OsStr::from_bytes(name))),
            }
        }
        Ok(blocks)
    }
}
