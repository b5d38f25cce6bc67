//! `dump`: the metadata of a QED image, every byte of it under a name.
//!
//! The areas that are printed cover the file from its first byte to its last, each byte once.

mod areas;
mod fields;
mod journal;
mod json;
mod layout;
mod marks;
mod runs;
mod sections;
mod text;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Args;
use qed_io::Storage;

use crate::app::Context;
use crate::args::{Format, OutputFormat, ReportArgs, one_name, parse_driver};
use crate::failure::{Exit, shown};
use crate::image_name::NameArgs;
use crate::open::{OpenHow, could_not_open, open_file};
use areas::Area;
use fields::Field;
use layout::Layout;
use runs::Run;

/// Show every byte of the metadata of a QED image under its name in the specification.
///
/// The areas shown cover the file from its first byte to its last, each byte once; guest data is
/// shown as runs of clusters. A damaged image is shown as far as it makes sense.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct DumpArgs {
    /// Format of the image: qed
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    #[command(flatten)]
    report: ReportArgs,
    /// The image
    #[arg(value_name = "FILENAME")]
    operands: Vec<OsString>,
    #[command(flatten)]
    named: NameArgs,
}

const NOTES: &str = "\
Examples:
  qed dump disk.qed
  qed dump --output=json disk.qed

Exit codes:
  0  the metadata was shown
  1  any error; a header that breaks a rule is shown before the error is";

/// Where a dump goes. Calls come in the order of the file: an area begins, its fields and runs
/// follow, it ends.
trait Form {
    fn begin(&mut self, name: &str, file_len: u64) -> io::Result<()>;
    fn begin_area(&mut self, area: &Area) -> io::Result<()>;
    fn field(&mut self, field: &Field) -> io::Result<()>;
    fn run(&mut self, run: &Run) -> io::Result<()>;
    fn end_area(&mut self) -> io::Result<()>;
    fn end(&mut self) -> io::Result<()>;
}

pub(crate) fn run(args: DumpArgs, context: &Context) -> anyhow::Result<Exit> {
    args.named.refused.check()?;
    let output = args.report.format()?;
    let name = one_name(&args.operands)?;
    if let Some(format) = args.format.as_deref()
        && parse_driver(format)? != Format::Qed
    {
        bail!("Only qed images can be dumped, not {}", shown(format));
    }
    // Not as an image: one with a damaged header is shown as far as it goes.
    let image = args.named.image(name, args.format.as_deref())?;
    let opened = open_file(&image, OpenHow::read(args.report.force_share));
    let (path, storage) = (image.path(), opened.with_context(|| could_not_open(name))?);
    let layout = Layout::of(&*storage).with_context(|| could_not_open(name))?;
    let mut out = context.console.lock();
    match output {
        OutputFormat::Human => dump(path, &*storage, &layout, &mut text::TextForm::new(&mut out))?,
        OutputFormat::Json => dump(path, &*storage, &layout, &mut json::JsonForm::new(&mut out))?,
    }
    match layout.fault {
        Some(fault) => Err(anyhow::Error::new(fault).context(could_not_open(name))),
        None => Ok(Exit::SUCCESS),
    }
}

fn dump(
    path: &Path,
    storage: &dyn Storage,
    layout: &Layout,
    form: &mut dyn Form,
) -> anyhow::Result<()> {
    form.begin(&shown(path), layout.file_len)?;
    for area in layout.areas() {
        form.begin_area(&area)?;
        fields::for_each(storage, layout, &area, |field| form.field(&field))?;
        runs::for_each(storage, layout, &area, |run| form.run(&run))?;
        form.end_area()?;
    }
    Ok(form.end()?)
}
