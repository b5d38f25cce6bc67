//! What the options of `convert` say, checked before any file is opened.

use std::ffi::{OsStr, OsString};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::ffi::OsStrExt;

use anyhow::bail;
use qed_convert::qcow2::Qcow2SnapshotSelector;
use qed_convert::{ConvertOptions, Order};

use super::ConvertArgs;
use crate::app::Context;
use crate::args::{
    CacheMode, Format, OptionList, number_in, parse_driver, parse_snapshot, parse_target,
};
use crate::new_image::{NewImage, print_options};

/// The checked options.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) image: NewImage,
    pub(super) backing: Option<Backing>,
    pub(super) options: ConvertOptions,
    pub(super) snapshot: Option<Qcow2SnapshotSelector>,
    pub(super) source_cache: CacheMode,
    pub(super) target_cache: CacheMode,
}

/// The backing file that the output is to have.
#[derive(Debug)]
pub(super) struct Backing {
    pub(super) name: Vec<u8>,
    pub(super) format: Format,
}

/// Largest run of zeros that `-S` can ask for.
const MAX_SPARSE_LEN: u64 = 16 << 20;

impl Settings {
    /// The settings; none if the options of the format were asked for, and printed.
    pub(super) fn of(args: &ConvertArgs, context: &Context) -> anyhow::Result<Option<Self>> {
        let source_cache =
            CacheMode::parse(args.source_cache.as_deref(), "Invalid source cache option")?;
        let target_cache = CacheMode::parse(args.target_cache.as_deref(), "Invalid cache option")?;
        let options =
            ConvertOptions { durable: target_cache != CacheMode::Unsafe, ..convert_options(args)? };
        let format = args.target_format.as_deref().unwrap_or(OsStr::new("raw"));
        let list = OptionList::parse(&args.target_options)?;
        if list.asks_for_help() {
            print_options(&context.console, parse_target(format)?)?;
            return Ok(None);
        }
        if args.target_image_opts && !args.no_create {
            bail!("--target-image-opts requires use of -n flag");
        }
        if args.target_is_zero && !args.no_create {
            bail!("--target-is-zero requires use of -n flag");
        }
        let mut image = NewImage::new(parse_target(format)?, list)?;
        if args.compress && image.format != Format::Qcow2 {
            bail!("Compression not supported for this file format");
        }
        let backing = Self::backing(args, &mut image)?;
        if backing.is_some() && args.operands.len() > 2 {
            bail!(
                "Having a backing file for the target makes no sense when concatenating multiple \
                 input images"
            );
        }
        Ok(Some(Self {
            image,
            backing,
            options,
            snapshot: args.source_snapshot.as_deref().map(parse_snapshot).transpose()?,
            source_cache,
            target_cache,
        }))
    }

    /// The backing file of the output, from `-B` and `-F` or from `-o`.
    fn backing(args: &ConvertArgs, image: &mut NewImage) -> anyhow::Result<Option<Backing>> {
        let given: [(&str, &Option<OsString>); 2] =
            [("backing_file", &args.backing), ("backing_fmt", &args.new_backing_format)];
        for (option, value) in given {
            let Some(value) = value else { continue };
            if !image.can_have_backing() {
                bail!("Backing file not supported for file format '{}'", image.format.name());
            }
            image.options.set(option, value.as_bytes().to_vec())?;
        }
        let Some(name) = image.options.given("backing_file") else { return Ok(None) };
        let Some(format) = image.options.given("backing_fmt").map(OsStr::from_bytes) else {
            bail!("Use of backing file requires explicit backing format");
        };
        Ok(Some(Backing { name: name.to_vec(), format: parse_driver(format)? }))
    }
}

fn convert_options(args: &ConvertArgs) -> anyhow::Result<ConvertOptions> {
    let mut options = ConvertOptions {
        salvage: args.salvage,
        // Whoever says which zeros become holes wants them looked for.
        share: !args.no_reflink && args.sparse_size.is_none(),
        ..ConvertOptions::default()
    };
    if let Some(sparse_size) = &args.sparse_size {
        options.sparse_len = sparse_len(sparse_size)?;
        if args.copy_range_offloading {
            bail!("Cannot enable copy offloading when -S is used");
        }
    }
    if args.compress && args.copy_range_offloading {
        bail!("Cannot enable copy offloading when -c is used");
    }
    if let Some(parallel) = &args.parallel {
        options.threads = threads(parallel)?;
    }
    if let Some(rate) = &args.rate {
        options.rate = NonZeroU64::new(number_in(rate, "rate limit", 0..=i64::MAX as u64)?);
    }
    if args.oob_writes {
        options.order = Order::Any;
    }
    Ok(options)
}

fn sparse_len(value: &OsStr) -> anyhow::Result<u64> {
    let what = "buffer size for sparse output";
    let len = number_in(value, what, 0..=i64::MAX.unsigned_abs())?;
    if !len.is_multiple_of(512) || len > MAX_SPARSE_LEN {
        bail!(
            "Invalid {what} specified. Valid sizes are multiples of 512 up to {MAX_SPARSE_LEN}. \
             Select 0 to disable sparse detection (fully allocates output)."
        );
    }
    Ok(len)
}

fn threads(value: &OsStr) -> anyhow::Result<NonZeroUsize> {
    let number = number_in(value, "number of coroutines", 1..=16)?;
    Ok(usize::try_from(number).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN))
}
