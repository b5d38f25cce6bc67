//! `info`: what an image says about itself.

mod human;
mod json;
mod report;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use anyhow::bail;
use clap::Args;

use crate::app::Context;
use crate::args::{OutputFormat, Refused, one_name};
use crate::failure::{Exit, shown};
use crate::open::{OpenHow, open_image};
use report::ImageReport;

/// Show what an image says about itself.
///
/// Opens the image alone; its backing file only with --backing-chain.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct InfoArgs {
    /// Format of the image; without it QED and QCOW2 are recognised by their first bytes
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    /// Show the backing files too
    #[arg(short, long)]
    backing_chain: bool,
    /// Format of a backing file, once per level of the chain
    #[arg(long, value_name = "FMT")]
    backing_format: Vec<OsString>,
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
    let levels = Levels {
        unlocked: args.force_share,
        formats: args.backing_format,
        whole_chain: args.backing_chain,
    };
    let reports = levels.collect(name, args.format.as_deref())?;
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
    formats: Vec<OsString>,
    whole_chain: bool,
}

/// Longer chains are refused, as everywhere in the program.
const MAX_DEPTH: usize = 200;

impl Levels {
    /// The reports, the image that was asked about first.
    fn collect(&self, name: OsString, format: Option<&OsStr>) -> anyhow::Result<Vec<ImageReport>> {
        let mut reports: Vec<ImageReport> = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some((name, format.map(OsStr::to_owned)));
        while let Some((name, format)) = next.take() {
            if reports.len() > MAX_DEPTH {
                bail!("The backing chain has more than {MAX_DEPTH} images");
            }
            let image = open_image(&name, format.as_deref(), OpenHow::read(self.unlocked))?;
            if !seen.insert(image.identity()) {
                bail!("Backing file '{}' creates an infinite loop.", shown(&name));
            }
            let report = ImageReport::of(&image)?;
            if self.whole_chain
                && let Some(backing) = &report.backing
            {
                let stated = self.formats.get(reports.len()).cloned();
                let format = stated.or_else(|| backing.format.clone());
                next = Some((backing.path.clone(), format));
            }
            reports.push(report);
        }
        Ok(reports)
    }
}
