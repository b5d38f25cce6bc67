//! What the storages promise, tried on real files, devices and against QEMU's programs.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed unwrap is a failed test, and test files are small"
)]

mod create;
mod device;
mod direct;
mod locks;
mod model;
mod open;
mod ring;
mod support;
mod test_storages;
