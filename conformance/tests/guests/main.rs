//! Real guests: QEMU boots Debian's kernel, whose disk is an image that `qed` serves.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod files;
mod initramfs;
mod kills;
mod lab;
mod machine;
mod moves;
mod qmp;
mod server;
mod writers;
