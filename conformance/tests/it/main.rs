//! This workspace beside the installed QEMU, and against hostile images.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod create;
mod faults;
mod golden;
mod hostile;
mod in_place;
mod in_place_back;
mod locks;
mod matrix;
mod modes;
mod runner;
mod support;
mod vectors;
