//! `map`: where the bytes of the virtual disk are.

mod extents;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use qed_core::GuestExtentKind;

use crate::app::Context;
use crate::args::{Format, OutputFormat, ReportArgs, number_in};
use crate::chain::ChainArgs;
use crate::failure::{Exit, printed};
use crate::image_name::ImageArgs;
use crate::open::OpenHow;
use extents::{Mapped, Mapping, for_each_extent};

/// Show where the bytes of the virtual disk are stored.
///
/// Where the image has nothing its backing files are shown, all the way down.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct MapArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Accepted for scripts: the backing files are always mapped
    #[arg(long, hide = true)]
    backing_chain: bool,
    #[command(flatten)]
    chain: ChainArgs,
    /// First byte of the virtual disk to show
    #[arg(short, long, value_name = "OFFSET")]
    start_offset: Option<OsString>,
    /// Bytes of the virtual disk to show
    #[arg(short = 'l', long, value_name = "LENGTH")]
    max_length: Option<OsString>,
    #[command(flatten)]
    report: ReportArgs,
}

const NOTES: &str = "\
Examples:
  qed map disk.qed
  qed map -f qed --output=json overlay.qed

Exit codes:
  0  the mapping was printed
  1  any error";

pub(crate) fn run(args: MapArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    let output = args.report.format()?;
    let offset = |value: &Option<OsString>, what| {
        value.as_deref().map(|value| number_in(value, what, 0..=i64::MAX as u64)).transpose()
    };
    let start = offset(&args.start_offset, "start offset")?.unwrap_or(0);
    let len = offset(&args.max_length, "max length")?.unwrap_or(u64::MAX);
    let name = args.image.named()?;
    let how = OpenHow::read(args.report.force_share);
    let mapping = Mapping::of(args.chain.open(&name, how)?)?;
    let range = start..start.saturating_add(len).min(mapping.disk.len());
    match output {
        OutputFormat::Human => human(&mapping, range, context)?,
        OutputFormat::Json => json(&mapping, range, context)?,
    }
    Ok(Exit::SUCCESS)
}

fn human(mapping: &Mapping, range: Range<u64>, context: &Context) -> anyhow::Result<()> {
    context.console.print(format!("{:<16}{:<16}{:<16}File\n", "Offset", "Length", "Mapped to"))?;
    for_each_extent(mapping, range, |extent| {
        match extent.kind {
            GuestExtentKind::Compressed => {
                anyhow::bail!("File contains external, encrypted or compressed clusters.")
            }
            GuestExtentKind::Data { host_offset } => {
                let columns = [extent.start, extent.len, host_offset].map(hex);
                let [start, len, host] = columns;
                let mut out = context.console.lock();
                write!(out, "{start:<16}{len:<16}{host:<16}")?;
                out.write_all(&printed(file_of(mapping, extent.depth).as_bytes()))?;
                out.write_all(b"\n")?;
            }
            GuestExtentKind::Hole { .. } | GuestExtentKind::Zero | GuestExtentKind::Unallocated => {
            }
        }
        Ok(())
    })
}

/// C's `%#x`: zero has no prefix.
fn hex(number: u64) -> String {
    if number == 0 { "0".to_owned() } else { format!("{number:#x}") }
}

fn file_of(mapping: &Mapping, depth: usize) -> &OsStr {
    mapping.layers.get(depth).map_or(OsStr::new(""), |layer| layer.path().as_os_str())
}

fn json(mapping: &Mapping, range: Range<u64>, context: &Context) -> anyhow::Result<()> {
    context.console.print("[")?;
    let mut first = true;
    for_each_extent(mapping, range, |extent| {
        let separator = if std::mem::take(&mut first) { "" } else { ",\n" };
        context.console.print(format!("{separator}{}", json_line(mapping, extent)))
    })?;
    context.console.print("]\n")
}

fn json_line(mapping: &Mapping, extent: &Mapped) -> String {
    let Mapped { start, len, depth, kind, .. } = *extent;
    let is_raw = mapping.layers.get(depth).is_some_and(|layer| layer.format() == Format::Raw);
    // A hole of a raw file has a place in it; a zero entry has none. What an entry maps is data to
    // QEMU, and zeros as well where the file has a hole.
    let (present, zero, data, host) = match kind {
        GuestExtentKind::Data { host_offset } => (true, false, true, Some(host_offset)),
        GuestExtentKind::Hole { host_offset } => (true, true, true, Some(host_offset)),
        GuestExtentKind::Compressed => (true, false, true, None),
        GuestExtentKind::Zero => (true, true, false, is_raw.then_some(start)),
        GuestExtentKind::Unallocated => (false, true, false, None),
    };
    let compressed = kind == GuestExtentKind::Compressed;
    let host = host.map_or_else(String::new, |host| format!(", \"offset\": {host}"));
    format!(
        "{{ \"start\": {start}, \"length\": {len}, \"depth\": {depth}, \"present\": {present}, \
         \"zero\": {zero}, \"data\": {data}, \"compressed\": {compressed}{host}}}"
    )
}
