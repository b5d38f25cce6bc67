//! This workspace beside the installed QEMU, and against hostile images.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod create;
mod faults;
mod hostile;
mod locks;
mod matrix;
mod support;
mod vectors;
