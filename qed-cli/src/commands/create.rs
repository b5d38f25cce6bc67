//! `create`: a new, empty image.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use anyhow::{anyhow, bail};
use clap::Args;
use qed_convert::NewBacking;
use qed_convert::qcow2::create_qcow2;
use qed_core::{BackingFormat, CreateBacking, CreateOptions, header_area};
use qed_io::Storage;

use crate::app::Context;
use crate::args::{CacheMode, Format, OptionList, Refused, number_in, parse_driver, parse_target};
use crate::failure::{Exit, error_text, shown, usage};
use crate::image_name::ImageName;
use crate::names::{beside, path_of};
use crate::new_file::NewFile;
use crate::new_image::{NewImage, print_options};
use crate::open::{ForeignImage, OpenHow, is_same_file, try_open_image, virtual_size};

/// Create a new image.
///
/// The virtual disk is empty, or shows the content of a backing file. An existing file of the same
/// name is replaced.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct CreateArgs {
    /// Format of the new image: raw (the default), qed or qcow2
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    /// Options of the format, separated by commas; 'help' lists them
    #[arg(short, long, value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// Image that clusters are read from until they are written
    #[arg(short, long, value_name = "BACKING_FILENAME")]
    backing: Option<OsString>,
    /// Format of the backing file
    #[arg(short = 'F', long, value_name = "BACKING_FMT")]
    backing_format: Option<OsString>,
    /// Do not open the backing file
    #[arg(short = 'u', long)]
    backing_unsafe: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The new image, and its size with an optional suffix K, M, G, T, P or E
    #[arg(value_name = "FILENAME [SIZE]")]
    operands: Vec<OsString>,
    #[command(flatten)]
    refused: Refused,
}

const NOTES: &str = "\
Examples:
  qed create -f qed disk.qed 64G
  qed create -f qed -b base.raw -F raw overlay.qed
  qed create -f qed -o cluster_size=4k -b base.raw -F raw small-writes.qed
  qed create -f qed -o cluster_size=1M,table_size=16 big.qed 16T

Cluster size of overlays:
  A small write to what only the backing file has stores a whole cluster. With
  4k clusters such writes are 6 times as fast as with 64k, the default, and
  take a sixteenth of the space, but the largest disk is 16 GiB. 8k allows
  128 GiB, 16k 1 TiB, 64k 64 TiB. docs/performance.md has the figures.

Exit codes:
  0  the image was created and is durable
  1  any error";

pub(crate) fn run(args: CreateArgs, context: &Context) -> anyhow::Result<Exit> {
    args.refused.check()?;
    let list = OptionList::parse(&args.options)?;
    let format = args.format.as_deref().unwrap_or(OsStr::new("raw"));
    if list.asks_for_help() {
        print_options(&context.console, parse_target(format)?)?;
        return Ok(Exit::SUCCESS);
    }
    let (name, size) = match args.operands.as_slice() {
        [] => return Err(usage("Expecting image file name")),
        [name] => (name, None),
        [name, size] => (name, Some(number_in(size, "image size", 0..=i64::MAX as u64)?)),
        [_, _, extra, ..] => {
            return Err(usage(format!("Unexpected argument: {}", shown(extra))));
        }
    };
    create(&args, format, list, name, size, context).map_err(|error| error.context(shown(name)))?;
    Ok(Exit::SUCCESS)
}

fn create(
    args: &CreateArgs,
    format: &OsStr,
    list: OptionList,
    name: &OsStr,
    size: Option<u64>,
    context: &Context,
) -> anyhow::Result<()> {
    let mut image = NewImage::new(parse_target(format)?, list)?;
    path_of(name)?;
    if let Some(size) = size {
        if image.options.given("size").is_some() {
            bail!("The image size must be specified only once");
        }
        image.options.set("size", size.to_string().into_bytes())?;
    }
    set_backing(args, &mut image)?;
    let backing = Backing::of(&image, name, args.backing_unsafe)?;
    let size = match (image.options.number("size"), backing.as_ref().and_then(|b| b.len)) {
        (Some(size), _) => size,
        (None, Some(len)) => {
            image.options.set("size", len.to_string().into_bytes())?;
            len
        }
        (None, None) => bail!("Image creation needs a size parameter"),
    };
    if !args.quiet {
        context.console.print(formatting(&image, name))?;
    }
    let size = size.next_multiple_of(512);
    context.interrupts.defer();
    match image.format {
        Format::Raw => create_raw(&image, name, size),
        Format::Qed => create_qed(&image, name, size, backing),
        Format::Qcow2 => create_qcow2_image(&image, name, size, backing),
    }
}

/// Puts `-b` and `-F` among the options of the format.
fn set_backing(args: &CreateArgs, image: &mut NewImage) -> anyhow::Result<()> {
    let options = [("backing_file", &args.backing), ("backing_fmt", &args.backing_format)];
    for (option, value) in options {
        let Some(value) = value else { continue };
        if !image.can_have_backing() {
            bail!("Backing file not supported for file format '{}'", image.format.name());
        }
        image.options.set(option, value.as_bytes().to_vec())?;
    }
    Ok(())
}

/// The backing file of the new image.
#[derive(Debug)]
struct Backing {
    name: Vec<u8>,
    format: Format,
    /// Bytes of its virtual disk, if it was opened.
    len: Option<u64>,
}

impl Backing {
    /// The backing file among the options; opened, unless `unopened`, to see that it is there.
    fn of(image: &NewImage, name: &OsStr, unopened: bool) -> anyhow::Result<Option<Self>> {
        let Some(file) = image.options.given("backing_file") else { return Ok(None) };
        if file.is_empty() {
            bail!("Expected backing file name, got empty string");
        }
        if file == name.as_bytes() {
            bail!("Error: Trying to create an image with the same filename as the backing file");
        }
        let format = image.options.given("backing_fmt").map(OsStr::from_bytes);
        let len = if unopened { None } else { Some(open_backing(file, format, name)?) };
        let Some(format) = format else {
            bail!("Backing file specified without backing format");
        };
        Ok(Some(Self { name: file.to_vec(), format: parse_driver(format)?, len }))
    }

    fn for_conversion(self) -> NewBacking {
        let format = Some(self.format.name().to_owned());
        NewBacking { name: self.name, format, len: self.len.unwrap_or(0) }
    }
}

/// The size of the backing file; one without a stated format is refused, with what it looks like.
fn open_backing(file: &[u8], format: Option<&OsStr>, image: &OsStr) -> anyhow::Result<u64> {
    let image = path_of(image)?;
    let path = beside(&image, file);
    let backing = ImageName::plain(&path, format)
        .and_then(|backing| try_open_image(&backing, OpenHow::read(false)));
    let backing = backing.map_err(|error| match error.downcast_ref() {
        Some(ForeignImage { format }) => format_missing(format),
        None => anyhow!("{}\nCould not open backing image.", error_text(&error)),
    })?;
    if is_same_file(&backing, &image) {
        bail!("Error: Trying to create an image that is its own backing file");
    }
    if format.is_none() {
        return Err(format_missing(backing.format().name()));
    }
    virtual_size(&backing)
}

fn format_missing(detected: &str) -> anyhow::Error {
    anyhow!("Backing file specified without backing format\nDetected format of {detected}.")
}

fn formatting(image: &NewImage, name: &OsStr) -> Vec<u8> {
    let mut line = b"Formatting '".to_vec();
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(format!("', fmt={}", image.format.name()).as_bytes());
    line.extend_from_slice(&image.options.summary());
    line.push(b'\n');
    line
}

fn create_raw(image: &NewImage, name: &OsStr, size: u64) -> anyhow::Result<()> {
    image.refuse_preallocation()?;
    let file = NewFile::create(name, CacheMode::Cached)?;
    file.set_raw_len(size)?;
    file.storage().flush()?;
    file.keep()
}

fn create_qed(
    image: &NewImage,
    name: &OsStr,
    size: u64,
    backing: Option<Backing>,
) -> anyhow::Result<()> {
    image.refuse_preallocation()?;
    let backing = backing.map(|backing| CreateBacking {
        format: match backing.format {
            Format::Raw => BackingFormat::Raw,
            other => BackingFormat::Named(other.name().to_owned()),
        },
        name: backing.name,
    });
    let (geometry, layout) = (image.geometry()?, image.layout()?);
    let options = CreateOptions { geometry, image_size: size, backing, layout };
    // Options that cannot be written are found before an existing file is emptied.
    header_area(&options)?;
    let file = NewFile::create(name, CacheMode::Cached)?;
    qed_core::create(&**file.storage(), &options)?;
    file.keep()
}

fn create_qcow2_image(
    image: &NewImage,
    name: &OsStr,
    size: u64,
    backing: Option<Backing>,
) -> anyhow::Result<()> {
    let options = image.qcow2(size, backing.map(Backing::for_conversion))?;
    let file = NewFile::create(name, CacheMode::Cached)?;
    create_qcow2(file.shared(), &options)?;
    file.keep()
}
