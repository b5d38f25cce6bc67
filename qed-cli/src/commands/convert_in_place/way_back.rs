//! `convert-in-place` from QED to QCOW2, from raw to QED and from QED to raw.

use std::error::Error;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use qed_convert::in_place::{
    FromRawOptions, InPlaceError, PlanFile, ToQcow2Options, ToRawOptions, plan_qed_to_qcow2,
    plan_qed_to_raw, plan_raw_to_qed, qed_to_qcow2, qed_to_raw, raw_to_qed,
};
use qed_core::LockPolicy;
use qed_io::Storage;

use super::print::Form;
use super::{
    ConvertInPlaceArgs, could_not_convert, hint_at_overlays, refuse_other_names,
    refuse_qcow2_options,
};
use crate::app::Context;
use crate::args::Format;
use crate::failure::{Exit, shown, usage};
use crate::open::{OpenHow, format_to_change, open_file};
use crate::work::Work;

/// Bytes per cluster of what was a raw file: what QEMU takes for a new image.
const CLUSTER_LEN: u32 = 64 << 10;

/// A file whose format is known, locked.
struct Opened {
    path: PathBuf,
    storage: Arc<dyn Storage>,
}

pub(super) fn to_qcow2(
    args: &ConvertInPlaceArgs,
    name: &OsStr,
    form: Form,
    context: &Context,
) -> anyhow::Result<Exit> {
    is_qed(args, name, Format::Qcow2)?;
    let Opened { storage, .. } = open(args, name)?;
    let options = ToQcow2Options {
        lock: LockPolicy::None,
        recovery: qed::RECOVER,
        backing_format: args.chain.first_format()?,
    };
    run(args, name, form, context, "qcow2", |is_dry| {
        let plan = match is_dry {
            true => plan_qed_to_qcow2(&storage, &options)?,
            false => qed_to_qcow2(&storage, &options)?,
        };
        Ok::<_, InPlaceError>([plan.old_len, plan.new_len])
    })
}

pub(super) fn to_raw(
    args: &ConvertInPlaceArgs,
    name: &OsStr,
    form: Form,
    context: &Context,
) -> anyhow::Result<Exit> {
    is_qed(args, name, Format::Raw)?;
    if args.chain.is_given() {
        return Err(usage("an image that becomes a raw file has no backing file"));
    }
    let Opened { path, storage } = open(args, name)?;
    let options = ToRawOptions { lock: LockPolicy::None, recovery: qed::RECOVER };
    run(args, name, form, context, "raw", |is_dry| {
        let plan = match is_dry {
            true => plan_qed_to_raw(&storage, &options)?,
            false => qed_to_raw(&storage, &PlanFile::beside(&path), &options)?,
        };
        Ok::<_, InPlaceError>([plan.old_len, plan.new_len])
    })
}

pub(super) fn from_raw(
    args: &ConvertInPlaceArgs,
    name: &OsStr,
    form: Form,
    context: &Context,
) -> anyhow::Result<Exit> {
    format_to_change(&args.named.image(name, args.format.as_deref())?)?;
    if args.chain.is_given() {
        return Err(usage("a raw file has no backing file"));
    }
    let Opened { path, storage } = open(args, name)?;
    let options = FromRawOptions { lock: LockPolicy::None, cluster_len: CLUSTER_LEN };
    run(args, name, form, context, "qed", |is_dry| {
        let plan = match is_dry {
            true => plan_raw_to_qed(&*storage, &options)?,
            false => raw_to_qed(&*storage, &PlanFile::beside(&path), &options)?,
        };
        Ok::<_, InPlaceError>([plan.old_len, plan.new_len])
    })
}

fn is_qed(args: &ConvertInPlaceArgs, name: &OsStr, to: Format) -> anyhow::Result<()> {
    refuse_qcow2_options(args)?;
    let format = format_to_change(&args.named.image(name, args.format.as_deref())?)?;
    if format == to {
        bail!("'{}' is a {format} image already", shown(name));
    }
    if format != Format::Qed {
        bail!("'{}' is no QED image; use qed convert", shown(name));
    }
    Ok(())
}

/// Opens the file itself: between two formats it may open in neither.
fn open(args: &ConvertInPlaceArgs, name: &OsStr) -> anyhow::Result<Opened> {
    let how = if args.dry_run { OpenHow::read(false) } else { OpenHow::WRITE };
    let named = args.named.image(name, args.format.as_deref())?;
    let file = open_file(&named, how).map_err(hint_at_overlays)?;
    let path = named.path().to_path_buf();
    refuse_other_names(name, &path)?;
    if !args.dry_run {
        crate::pending::take_over_file(&path, &file)?;
    }
    Ok(Opened { path, storage: file })
}

/// Plans or converts, and says what came of it.
fn run<E: Error + Send + Sync + 'static>(
    args: &ConvertInPlaceArgs,
    name: &OsStr,
    form: Form,
    context: &Context,
    format: &str,
    act: impl FnOnce(bool) -> Result<[u64; 2], E>,
) -> anyhow::Result<Exit> {
    let start = Instant::now();
    if args.dry_run {
        let lens = act(true).with_context(|| could_not_convert(name))?;
        form.lens(&context.console, name, format, lens, None)?;
        return Ok(Exit::SUCCESS);
    }
    let work = Work::start_writing(context, args.work())?;
    let lens = work.finish(act(false)).with_context(|| could_not_convert(name))?;
    form.lens(&context.console, name, format, lens, Some(start.elapsed()))?;
    Ok(Exit::SUCCESS)
}
