//! Random operations done to one file by this workspace and by QEMU in turns, beside a flat model.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod alternate;
mod scene;
