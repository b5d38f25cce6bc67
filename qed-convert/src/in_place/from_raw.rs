//! Raw to QED in place: every cluster stays where it is but the first, which is copied to the end.
//!
//! Owns the order of the steps; `from_raw/layout.rs` says what goes where. All of a raw file is the
//! guest's, so nothing below its end is written before the commit, and what a call after a crash has
//! to know is in a plan beside the file. Step names are those of docs/write-ordering.md.

mod layout;

use qed_core::LockPolicy;
use qed_io::{ImageLock, Storage};
use qed_spec::Geometry;

use crate::in_place::error::{InPlaceError, Step, failed};
use crate::in_place::kept_plan::{Made, Plan, PlanFault, Way, inode_of};
use crate::in_place::plan_file::PlanStore;
use crate::in_place::step::{self, SECTOR};
use layout::Layout;

/// How a raw file becomes a QED image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromRawOptions {
    /// Whether the image lock is taken.
    pub lock: LockPolicy,
    /// Bytes per cluster.
    pub cluster_len: u32,
}

/// What a conversion does, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromRawPlan {
    /// Cluster and table size of the QED image.
    pub geometry: Geometry,
    /// Bytes of the raw file, which are those of the disk.
    pub old_len: u64,
    /// Length of the file afterwards, in bytes.
    pub new_len: u64,
}

/// Says what [`raw_to_qed`] would do, and changes nothing.
///
/// # Errors
/// What the conversion would be refused for, and failed reads.
pub fn plan_raw_to_qed(
    storage: &dyn Storage,
    options: &FromRawOptions,
) -> Result<FromRawPlan, InPlaceError> {
    let len = step::len(storage)?;
    Ok(Layout::plan(storage, options, len)?.summary())
}

/// Turns the raw file in `storage` into a QED image of QEMU's layout; durable when it returns.
///
/// The disk has the bytes of the file; its holes stay holes. The file is raw until sector 0 is
/// written. A call after a crash finishes what was committed, and else begins anew with the length
/// that the plan in `plans` says. It cuts off nothing but what the call before appended: a file that
/// grew, shrank or was written behind the disk since is refused.
///
/// # Errors
/// What keeps the file from being converted, and the storage's errors.
pub fn raw_to_qed(
    storage: &dyn Storage,
    plans: &dyn PlanStore,
    options: &FromRawOptions,
) -> Result<FromRawPlan, InPlaceError> {
    if options.lock == LockPolicy::Take {
        storage.lock(ImageLock::WRITE)?;
    }
    let len = step::len(storage)?;
    let Some(bytes) = plans.load().map_err(failed(Step::Plan))? else {
        return convert(storage, plans, options, len);
    };
    let shown = || plans.shown();
    let plan = Plan::parse(&bytes).ok_or_else(|| PlanFault::NotAPlan { plan: shown() })?;
    let other = || PlanFault::OtherPlan { plan: shown() };
    if plan.way != Way::RawToQed || !plan.is_of(storage) {
        return Err(other().into());
    }
    let sector = step::read(storage, 0)?;
    let layout = Layout::of(&plan).ok_or_else(other)?;
    if sector == plan.new {
        finish(&layout, storage, plans)?;
        return Ok(layout.summary());
    }
    if sector != plan.old {
        return Err(other().into());
    }
    let raw_len = plan.raw_len;
    if len < raw_len {
        return Err(PlanFault::Shrunk { plan: shown(), len, raw_len }.into());
    }
    if len > raw_len {
        cut(storage, plans, &plan, &layout)?;
    }
    convert(storage, plans, options, raw_len)
}

/// Step "cut": what the call before appended, and nothing else.
fn cut(
    storage: &dyn Storage,
    plans: &dyn PlanStore,
    plan: &Plan,
    layout: &Layout,
) -> Result<(), InPlaceError> {
    let (len, raw_len) = (step::len(storage)?, plan.raw_len);
    let is_ours = match &plan.made {
        Some(made) => made.tail.is_behind(storage, raw_len)?,
        // In a plan of an earlier version is no more than where things go.
        None => layout.tail(&layout.read_first(storage)?).is_behind(storage, raw_len)?,
    };
    if !is_ours {
        return Err(PlanFault::Grown { plan: plans.shown(), len, raw_len }.into());
    }
    step::set_len(storage, Step::Cut, raw_len)?;
    step::flush(storage, Step::Cut)
}

fn convert(
    storage: &dyn Storage,
    plans: &dyn PlanStore,
    options: &FromRawOptions,
    len: u64,
) -> Result<FromRawPlan, InPlaceError> {
    let layout = Layout::plan(storage, options, len)?;
    let new = layout.header_sector()?;
    let (old, first) = (step::read(storage, 0)?, layout.read_first(storage)?);
    let made = Some(Made { inode: inode_of(storage), tail: layout.tail(&first) });
    let plan = Plan { way: Way::RawToQed, raw_len: len, old, new, made };
    plans.save(&plan.encode()).map_err(failed(Step::Plan))?;
    if let Err(error) = layout.append(storage, &first) {
        // The error that is returned says more than a file that stays long; the plan stays for it.
        let _ = storage.set_len(len).and_then(|()| storage.flush()).and_then(|()| plans.remove());
        return Err(error);
    }
    step::commit(storage, &new)?;
    finish(&layout, storage, plans)?;
    Ok(layout.summary())
}

/// Step "wipe": nothing of the guest's is left in the header area, where a superblock could be
/// read into it. Then the plan is over.
fn finish(
    layout: &Layout,
    storage: &dyn Storage,
    plans: &dyn PlanStore,
) -> Result<(), InPlaceError> {
    let range = SECTOR as u64..layout.geometry.cluster_size_bytes();
    storage.write_zeroes(range).map_err(failed(Step::Wipe))?;
    step::flush(storage, Step::Wipe)?;
    plans.remove().map_err(failed(Step::Plan))
}
