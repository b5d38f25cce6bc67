//! The images of `serve` as exports: opened, locked and named.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, bail};
use qed_export::nbd::{Export, Exports};
use qed_export::{BlockDevice, QedDisk, RawDisk, ReadOnlyDisk, WriteThrough};

use super::ServeArgs;
use crate::args::{CacheMode, Format, refuse_qcow2};
use crate::failure::usage;
use crate::open::{OpenHow, could_not_open, open_image, storage_of};

/// Opens all images; those that are open are closed again if one fails.
pub(super) fn open_exports(args: &ServeArgs, cache: CacheMode) -> anyhow::Result<Exports> {
    let images = &args.operands;
    if !args.name.is_empty() && args.name.len() != images.len() {
        return Err(usage("Expecting --name once for each image, or never"));
    }
    let mut exports = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let name = name(image, args.name.get(index), images.len() == 1);
        exports.push(Export::new(name.as_bytes(), open(args, image, cache)?));
    }
    Ok(Exports::new(exports)?)
}

fn name<'n>(image: &'n OsStr, given: Option<&'n OsString>, is_alone: bool) -> &'n OsStr {
    match given {
        Some(given) => given,
        None if is_alone => OsStr::new(""),
        None => Path::new(image).file_name().unwrap_or(image),
    }
}

fn open(args: &ServeArgs, name: &OsStr, cache: CacheMode) -> anyhow::Result<Box<dyn BlockDevice>> {
    let named = args.named.image(name, args.format.as_deref())?;
    if args.read_only {
        let how = OpenHow { cache, ..OpenHow::read(args.force_share) };
        return Ok(Box::new(ReadOnlyDisk::new(args.chain.open(&named, how)?.disk)));
    }
    if args.force_share {
        bail!("-U can only be used with --read-only");
    }
    let image = open_image(&named, OpenHow { cache, ..OpenHow::WRITE })?;
    refuse_qcow2(image.format(), "writing to")?;
    let disk: Box<dyn BlockDevice> = match image.format() {
        Format::Qed => {
            let writable = args.chain.writable(&image, OpenHow::read(false));
            Box::new(QedDisk::new(writable.with_context(|| could_not_open(name))?))
        }
        Format::Raw | Format::Qcow2 => Box::new(RawDisk::open(storage_of(&image))?),
    };
    if CacheMode::is_write_through(args.cache.as_deref()) {
        return Ok(Box::new(WriteThrough::new(disk)));
    }
    Ok(disk)
}
