//! What a crash may leave of a recorded run.
//!
//! `states` has the disk model, `subject` the engine for anything that is cut; `workload` and `run` what is done to an image, `judge` what must hold
//! of each state, `life` and `death` the same of processes that die, `campaign` the loop over seeds.

pub(crate) mod campaign;
pub(crate) mod death;
pub(crate) mod failure;
pub(crate) mod faults;
mod fingerprint;
mod foreign;
pub(crate) mod generate;
mod guest;
mod judge;
pub(crate) mod life;
pub(crate) mod log_writes;
mod qemu_view;
mod regions;
pub(crate) mod rules;
mod run;
mod space;
pub(crate) mod states;
pub(crate) mod stream;
pub(crate) mod subject;
mod together;
pub(crate) mod workload;
