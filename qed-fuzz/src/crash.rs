//! What a crash may leave of a recorded run, and a disk to put it on.
//!
//! `states` has the disk model, `workload` and `run` what is done to an image, `judge` what must hold
//! of each state, `campaign` the loop over seeds.

pub(crate) mod campaign;
pub(crate) mod disk;
pub(crate) mod failure;
pub(crate) mod faults;
mod fingerprint;
mod foreign;
pub(crate) mod generate;
mod guest;
mod judge;
pub(crate) mod log_writes;
mod qemu_view;
pub(crate) mod rules;
mod run;
pub(crate) mod states;
pub(crate) mod stream;
mod together;
pub(crate) mod workload;
