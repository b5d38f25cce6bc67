//! Conversion in place: a QCOW2 image or a raw file becomes a QED image without a copy of its data, and
//! back.
//!
//! Tables are appended, read back, and one write of the first sector changes the format. At every
//! moment the file is exactly one of the two. The order of the writes, step by step, is in
//! docs/in-place-conversion.md; the clauses of the format are QED-CONV-01 to 06.
//!
//! Knows storages, not paths: locks, names and what a user is asked are the caller's.

mod area;
mod claims;
mod error;
mod from_raw;
mod kept_plan;
mod plan;
mod plan_file;
mod refcounts;
mod scan;
mod step;
mod to_qcow2;
mod to_raw;
mod translate;
mod undo;
mod verify;

pub use error::{InPlaceError, Refusal, Step};
pub use from_raw::{FromRawOptions, FromRawPlan, plan_raw_to_qed, raw_to_qed};
pub use kept_plan::PlanFault;
pub use plan::{Dropped, InPlacePlan, ToQed, ToQedOptions};
pub use plan_file::{PlanFile, PlanStore};
pub use to_qcow2::{ToQcow2Options, ToQcow2Plan, plan_qed_to_qcow2, qed_to_qcow2};
pub use to_raw::{ToRawOptions, ToRawPlan, plan_qed_to_raw, qed_to_raw};
pub use undo::{finalize, undo};
