//! `check`: is a QED image consistent, and can it be mended.

mod print;

use std::ffi::{OsStr, OsString};

use anyhow::bail;
use clap::Args;
use qed_check::{CheckOptions, Repair, Report, check, repair};
use qed_convert::chain::Layer;
use qed_core::{JournalReplay, replay_journal, show_replayed};

use crate::app::Context;
use crate::args::{CacheMode, Format, OutputFormat, ReportArgs};
use crate::failure::{Exit, error_text, shown, usage};
use crate::image_name::{ImageArgs, ImageName};
use crate::open::{ForeignImage, OpenHow, could_not_open, open_image, storage_of};
use crate::output::write_json;

/// Check whether a QED image is consistent, and repair it.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Repair leaks, or all errors
    #[arg(short, long, value_name = "leaks|all")]
    repair: Option<OsString>,
    /// Cache mode
    #[arg(short = 'T', long, value_name = "CACHE")]
    cache: Option<OsString>,
    #[command(flatten)]
    report: ReportArgs,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

const NOTES: &str = "\
What is wrong is listed on standard error, one line for each finding with its permanent number.
A repair that changes an entry of a table, or finds an image that was not closed, gives no space
back: what no table names any more may be what a broken entry led to. It says how many clusters it
kept; in a classic image they are leaks, exit code 3, and -r leaks gives them back.
Space that nothing names is leaked in a classic image: -r leaks cuts it off at the end of the file and
punches holes for the rest, which still counts as leaked; compact leaves none. In any other image it is
free space: the next writer uses it.
The backing file is not looked at. What the journal of an image that was not closed holds counts as
if it were in the tables; -r writes it there first.

Examples:
  qed check disk.qed
  qed check -f qed -r all disk.qed

Exit codes:
  0   no errors
  1   the check could not be completed
  2   errors that may harm data
  3   leaked clusters, but no errors
  63  images of this format cannot be checked";

/// Corruptions were found.
const CORRUPT: Exit = Exit(2);
/// Leaks were found and nothing worse.
const LEAKS: Exit = Exit(3);
/// The format has no check.
const NOT_SUPPORTED: Exit = Exit(63);

pub(crate) fn run(args: CheckArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    let output = args.report.format()?;
    let repair = args.repair.as_deref().map(parse_repair).transpose()?;
    let cache = CacheMode::parse(args.cache.as_deref(), "Invalid source cache option")?;
    let name = args.image.given()?;
    let named = args.image.named()?;
    let opened = open(&named, repair, args.report.force_share, cache);
    let image = match opened {
        Ok(image) if image.format() == Format::Qed => image,
        Ok(image) => {
            let format = image.format();
            let text = match format {
                Format::Qcow2 => format!("This image format does not support checks: {format}"),
                _ => "This image format does not support checks".to_owned(),
            };
            context.console.error(&text);
            return Ok(NOT_SUPPORTED);
        }
        Err(error) if error.is::<ForeignImage>() => {
            context.console.error(&error_text(&error));
            return Ok(NOT_SUPPORTED);
        }
        Err(error) => return Err(error),
    };
    let (journal, report) =
        examine(&image, repair, context).map_err(|error| error.context(could_not_check(name)))?;
    if !args.quiet {
        match output {
            OutputFormat::Human => context.console.print(print::human(&journal, &report))?,
            OutputFormat::Json => {
                let name = image.path().as_os_str();
                write_json(context.console.lock(), print::json(&journal, &report, name))?;
            }
        }
        print::findings(&context.console, &report);
        print::given_back(&context.console, &report, name);
    }
    Ok(match &report {
        report if report.corruptions() > 0 => CORRUPT,
        report if report.leaks() > 0 => LEAKS,
        _ => Exit::SUCCESS,
    })
}

fn parse_repair(value: &OsStr) -> anyhow::Result<Repair> {
    match value.as_encoded_bytes() {
        b"leaks" => Ok(Repair::Leaks),
        b"all" => Ok(Repair::All),
        _ => {
            let value = shown(value);
            Err(usage(format!("--repair (-r) expects 'leaks' or 'all' not '{value}'")))
        }
    }
}

fn open(
    name: &ImageName,
    repair: Option<Repair>,
    unlocked: bool,
    cache: CacheMode,
) -> anyhow::Result<Layer> {
    if repair.is_none() {
        return open_image(name, OpenHow { cache, ..OpenHow::read(unlocked) });
    }
    if unlocked {
        let why = "force-share=on can only be used with read-only images";
        bail!("{}: {why}", could_not_open(name.given()));
    }
    open_image(name, OpenHow { cache, ..OpenHow::WRITE })
}

/// What the journal of an image held that was not in the tables.
enum FoundInJournal {
    Nothing,
    /// It is there still; the tables were checked as if it was in them.
    Waiting(JournalReplay),
    /// It was written home first.
    Replayed(JournalReplay),
}

fn examine(
    image: &Layer,
    what: Option<Repair>,
    context: &Context,
) -> anyhow::Result<(FoundInJournal, Report)> {
    let storage = storage_of(image);
    Ok(match what {
        None => {
            crate::pending::warn_of_waiting(&context.console, image);
            // What the journal holds is checked as if it were in the tables.
            let (journal, shown) = match show_replayed(&storage)? {
                Some(shown) => (FoundInJournal::Waiting(shown.waiting), shown.storage),
                None => (FoundInJournal::Nothing, storage),
            };
            (journal, check(&*shown, &CheckOptions::default())?)
        }
        Some(what) => {
            // A repair is safe to stop anywhere, but not worth stopping half way.
            context.interrupts.defer();
            crate::pending::take_over_to_repair(&context.console, image)?;
            let replayed = replay_journal(&storage)?;
            let journal = replayed.map_or(FoundInJournal::Nothing, FoundInJournal::Replayed);
            (journal, repair(&*storage, what)?)
        }
    })
}

fn could_not_check(name: &OsStr) -> String {
    format!("Could not check '{}'", shown(name))
}
