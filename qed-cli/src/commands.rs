//! The subcommands: the list of them, and one module for each.

mod amend;
mod bench;
mod check;
mod commit;
mod compact;
mod compare;
mod completions;
mod convert;
mod convert_in_place;
mod create;
mod dd;
mod dump;
mod help;
mod info;
mod map;
mod measure;
mod mount;
mod rebase;
mod resize;
mod serve;
mod snapshot;
mod vhost;

use clap::{Parser, Subcommand};

use crate::app::Context;
use crate::failure::Exit;

/// Create, inspect, check, convert and compare QED, QCOW2 and raw disk images.
///
/// The program takes the command lines of qemu-img and answers as qemu-img does. Called by another
/// name, such as a link named qemu-img, it uses that name in its messages.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, subcommand_required = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Amend(amend::AmendArgs),
    Bench(bench::BenchArgs),
    Check(check::CheckArgs),
    Commit(commit::CommitArgs),
    Compact(compact::CompactArgs),
    Compare(compare::CompareArgs),
    Completions(completions::CompletionsArgs),
    Convert(convert::ConvertArgs),
    ConvertInPlace(convert_in_place::ConvertInPlaceArgs),
    Create(create::CreateArgs),
    Dd(dd::DdArgs),
    Dump(dump::DumpArgs),
    Help(help::HelpArgs),
    Info(info::InfoArgs),
    Map(map::MapArgs),
    Measure(measure::MeasureArgs),
    Mount(mount::MountArgs),
    Rebase(rebase::RebaseArgs),
    Resize(resize::ResizeArgs),
    Serve(Box<serve::ServeArgs>),
    Snapshot(snapshot::SnapshotArgs),
    Vhost(vhost::VhostArgs),
}

impl Cli {
    /// Runs the subcommand.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.command {
            Command::Amend(args) => amend::run(args, context),
            Command::Bench(args) => bench::run(args, context),
            Command::Check(args) => check::run(args, context),
            Command::Commit(args) => commit::run(args, context),
            Command::Compact(args) => compact::run(args, context),
            Command::Compare(args) => compare::run(args, context),
            Command::Completions(args) => completions::run(&args, context),
            Command::Convert(args) => convert::run(args, context),
            Command::ConvertInPlace(args) => convert_in_place::run(args, context),
            Command::Create(args) => create::run(args, context),
            Command::Dd(args) => dd::run(args, context),
            Command::Dump(args) => dump::run(args, context),
            Command::Help(args) => help::run(&args, context),
            Command::Info(args) => info::run(args, context),
            Command::Map(args) => map::run(args, context),
            Command::Measure(args) => measure::run(args, context),
            Command::Mount(args) => mount::run(args, context),
            Command::Rebase(args) => rebase::run(args, context),
            Command::Resize(args) => resize::run(args, context),
            Command::Serve(args) => serve::run(&args, context),
            Command::Snapshot(args) => snapshot::run(args, context),
            Command::Vhost(args) => vhost::run(args, context),
        }
    }
}
