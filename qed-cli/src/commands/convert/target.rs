//! The output of `convert`: a new image, one that exists, or standard output.

use std::ffi::OsStr;

use anyhow::{anyhow, bail};
use qed_convert::{NewBacking, Target, TargetContent, convert};
use qed_core::VirtualDisk;

use super::ConvertArgs;
use super::settings::{Backing, Settings};
use crate::app::Context;
use crate::args::{Format, refuse_qcow2};
use crate::chain::{ChainArgs, Disk};
use crate::console;
use crate::failure::{Interrupted, error_text, shown};
use crate::image_name::ImageName;
use crate::names::{beside, path_of};
use crate::open::{OpenHow, could_not_open, open_image, storage_of, try_open_image, virtual_size};
use crate::output_image::{Copy, copy_to_new};
use crate::work::{Work, WorkArgs};

/// Copies `source` to the output.
pub(super) fn write(
    args: &ConvertArgs,
    settings: &Settings,
    source: &Disk,
    output: &OsStr,
    context: &Context,
) -> anyhow::Result<()> {
    let Disk { disk: source, layers } = source;
    let source = &**source;
    if output == "-" {
        return write_stream(args, settings, source, context);
    }
    if args.no_create {
        return write_existing(args, settings, source, output, context);
    }
    let backing = match &settings.backing {
        Some(backing) => Some(new_backing(backing, output)?),
        None => None,
    };
    let copy = Copy {
        image: &settings.image,
        inputs: layers,
        cache: settings.target_cache,
        backing,
        compress: args.compress,
    };
    let work = Work::start_writing(context, args.work)?;
    let copied = copy_to_new(source, output, &copy, &settings.options, work, context);
    copied.map(drop).map_err(|error| {
        if error.is::<Interrupted>() {
            return error;
        }
        let (output, format) = (shown(output), settings.image.format.name());
        anyhow!("{output}: error while converting {format}: {}", error_text(&error))
    })
}

/// What the new image records about its backing file, which is opened for its size.
fn new_backing(backing: &Backing, output: &OsStr) -> anyhow::Result<NewBacking> {
    let path = beside(&path_of(output)?, &backing.name);
    let format = backing.format.name();
    let opened = ImageName::plain(&path, Some(OsStr::new(format)))
        .and_then(|image| try_open_image(&image, OpenHow::read(false)));
    let len = opened.and_then(|image| virtual_size(&image)).map_err(|error| {
        let why = error_text(&error);
        anyhow!("{}: Could not open backing file: {why}", could_not_open(output))
    })?;
    Ok(NewBacking { name: backing.name.clone(), format: Some(format.to_owned()), len })
}

fn write_stream(
    args: &ConvertArgs,
    settings: &Settings,
    source: &dyn VirtualDisk,
    context: &Context,
) -> anyhow::Result<()> {
    if settings.image.format != Format::Raw {
        bail!("Only raw images can be written to standard output");
    }
    if args.work.progress {
        bail!("Progress cannot be shown while the image goes to standard output");
    }
    let work = Work::start(context, WorkArgs { progress: false, ..args.work })?;
    let target = Target::Stream(Box::new(console::stream()));
    let copied = convert(source, target, &settings.options, &work);
    work.finish(copied).map(drop)
}

fn write_existing(
    args: &ConvertArgs,
    settings: &Settings,
    source: &dyn VirtualDisk,
    output: &OsStr,
    context: &Context,
) -> anyhow::Result<()> {
    let how = OpenHow { cache: settings.target_cache, ..OpenHow::WRITE };
    let format = match args.target_image_opts {
        true => args.target_format.as_deref(),
        false => Some(OsStr::new(settings.image.format.name())),
    };
    let existing = open_image(&ImageName::of(output, format, args.target_image_opts)?, how)?;
    let format = existing.format();
    refuse_qcow2(format, "writing to")?;
    let content = match &settings.backing {
        Some(_) if args.target_is_zero => {
            bail!("Cannot use --target-is-zero when the destination image has a backing file")
        }
        Some(_) => TargetContent::SourceFrom(1),
        None if args.target_is_zero => TargetContent::Zeros,
        None => TargetContent::Unknown,
    };
    let options = &settings.options;
    if format == Format::Raw {
        let work = Work::start_writing(context, args.work)?;
        let target = Target::RawImage { storage: storage_of(&existing), content };
        let copied = convert(source, target, options, &work);
        return work.finish(copied).map(drop);
    }
    let image = existing_chain(settings).writable(&existing, OpenHow::read(false))?;
    let work = Work::start_writing(context, args.work)?;
    let copied = convert(source, Target::QedImage { image: &image, content }, options, &work);
    work.finish(copied)?;
    Ok(image.close()?)
}

/// The chain below an existing output: its first backing file is the one that `-B` names.
fn existing_chain(settings: &Settings) -> ChainArgs {
    let format = settings.backing.as_ref().map(|backing| backing.format);
    ChainArgs::of_formats(format.map(|format| format.name().into()).into_iter().collect())
}
