//! `snapshot`: the list of the internal snapshots of an image. Making, applying and deleting them is
//! refused by name.

use std::ffi::{OsStr, OsString};

use anyhow::bail;
use clap::Args;

use crate::app::Context;
use crate::args::{Format, OutputFormat, ReportArgs};
use crate::failure::{Exit, shown, unsupported, usage};
use crate::image_name::ImageArgs;
use crate::open::{OpenHow, could_not_open, open_image, open_qcow2_alone};
use crate::output::{snapshot_list, snapshots_json, write_json};

/// List the internal snapshots of an image.
///
/// Only QCOW2 images have any so far. Creating, applying and deleting snapshots is not supported yet.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct SnapshotArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// List the snapshots, which is the default
    #[arg(short, long)]
    list: bool,
    /// Create a snapshot: not supported yet
    #[arg(short, long, value_name = "SNAPSHOT")]
    create: Option<OsString>,
    /// Make the disk what a snapshot is: not supported yet
    #[arg(short, long, value_name = "SNAPSHOT")]
    apply: Option<OsString>,
    /// Delete a snapshot: not supported yet
    #[arg(short, long, value_name = "SNAPSHOT")]
    delete: Option<OsString>,
    #[command(flatten)]
    report: ReportArgs,
    /// Print nothing but errors and the list
    #[arg(short, long)]
    quiet: bool,
}

const NOTES: &str = "\
Dates are in UTC. 'qed convert -l SNAPSHOT' copies what a snapshot has.

Examples:
  qed snapshot -l disk.qcow2
  qed snapshot --output=json disk.qcow2

Exit codes:
  0  the list was printed; it is empty where there are no snapshots
  1  any error";

pub(crate) fn run(args: SnapshotArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    let output = args.report.format()?;
    let change = args.change()?;
    let name = args.image.given()?;
    let named = args.image.named()?;
    let image = open_image(&named, OpenHow::read(args.report.force_share))?;
    if let Some((verb, participle, snapshot)) = change {
        if image.format() == Format::Raw {
            bail!("Could not {verb} snapshot '{}': Operation not supported", shown(snapshot));
        }
        let what = format_args!("{participle} a snapshot of a {} image", image.format());
        return Err(unsupported(what));
    }
    let snapshots = match image.format() {
        Format::Qcow2 => {
            let opened =
                open_qcow2_alone(&image).map_err(|error| error.context(could_not_open(name)))?;
            opened.snapshots().to_vec()
        }
        Format::Raw | Format::Qed => Vec::new(),
    };
    match output {
        OutputFormat::Human => context.console.print(snapshot_list(&snapshots))?,
        OutputFormat::Json => {
            write_json(context.console.lock(), snapshots_json(&snapshots).into())?;
        }
    }
    Ok(Exit::SUCCESS)
}

impl SnapshotArgs {
    /// The change that is asked for, in two forms of its verb, and of which snapshot.
    fn change(&self) -> anyhow::Result<Option<(&'static str, &'static str, OsString)>> {
        let changes = [
            ("create", "creating", &self.create),
            ("apply", "applying", &self.apply),
            ("delete", "deleting", &self.delete),
        ];
        let mut asked = changes.into_iter().filter_map(|(verb, participle, snapshot)| {
            snapshot.as_deref().map(|it| (verb, participle, OsStr::to_owned(it)))
        });
        let first = asked.next();
        if asked.next().is_some() || (self.list && first.is_some()) {
            return Err(usage("Cannot mix '-l', '-a', '-c', '-d'"));
        }
        Ok(first)
    }
}
