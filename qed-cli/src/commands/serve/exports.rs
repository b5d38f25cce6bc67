//! The images of `serve` as exports: opened, locked and named.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use qed_core::DiscardMode;
use qed_export::server::{Export, Exports};
use qed_export::{BlockDevice, QedDisk, RawDisk, ReadOnlyDisk, WriteThrough};

use super::ServeArgs;
use crate::args::{CacheMode, Format, discard_mode, refuse_qcow2};
use crate::failure::{shown, usage};
use crate::open::{OpenHow, could_not_open, open_image, storage_of};

/// Opens all images; those that are open are closed again if one fails.
pub(super) fn open_exports(args: &ServeArgs, cache: CacheMode) -> anyhow::Result<Exports> {
    let images = &args.operands;
    if !args.name.is_empty() && args.name.len() != images.len() {
        return Err(usage("Expecting --name once for each image, or never"));
    }
    let how = How { cache, discard: discard_mode(args.discard.as_deref())? };
    let mut exports = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let name = name(image, args.name.get(index), images.len() == 1);
        exports.push(Export::new(name.as_bytes(), open(args, image, how)?));
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

/// How all images are opened.
#[derive(Debug, Clone, Copy)]
struct How {
    cache: CacheMode,
    discard: DiscardMode,
}

fn open(args: &ServeArgs, name: &OsStr, how: How) -> anyhow::Result<Arc<dyn BlockDevice>> {
    let How { cache, discard } = how;
    let named = args.named.image(name, args.format.as_deref())?;
    if args.read_only {
        if args.extend_below.is_some() {
            bail!("--extend-below is for images that are written");
        }
        let how = OpenHow { cache, ..OpenHow::read(args.force_share) };
        return Ok(Arc::new(ReadOnlyDisk::new(args.chain.open(&named, how)?.disk)));
    }
    if args.force_share {
        bail!("-U can only be used with --read-only");
    }
    let image = open_image(&named, OpenHow { cache, ..OpenHow::WRITE })?;
    refuse_qcow2(image.format(), "writing to")?;
    let disk: Arc<dyn BlockDevice> = match image.format() {
        Format::Qed => {
            let below = OpenHow::read(false);
            let writable = args.chain.writable_discarding(&image, below, discard);
            Arc::new(QedDisk::new(writable.with_context(|| could_not_open(name))?))
        }
        Format::Raw | Format::Qcow2 => {
            let disk = RawDisk::open(storage_of(&image))?;
            Arc::new(if discard == DiscardMode::PassDown { disk.giving_back() } else { disk })
        }
    };
    if args.extend_below.is_some() && disk.space_usage()?.and_then(|usage| usage.capacity).is_none()
    {
        bail!("'{}' is no QED image on a block device, which --extend-below is for", shown(name));
    }
    if CacheMode::is_write_through(args.cache.as_deref()) {
        return Ok(Arc::new(WriteThrough::new(disk)));
    }
    Ok(disk)
}
