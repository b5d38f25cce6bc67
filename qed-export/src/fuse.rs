//! A disk as a file that every program can open, by FUSE.
//!
//! [`Mount`] lets the file appear in the place of another, or as the one file of a folder, and serves it.
//! `disk_file` says what the calls of the file mean for the disk and knows no kernel messages;
//! `filesystem` has the messages; `mount_point` is the kernel's mount.
//!
//! What a program wrote is acknowledged when the disk has it: the kernel holds nothing back (no writeback
//! cache), but for what is written through a shared mapping, which is sent at `msync` and `fsync`.

mod attributes;
mod disk_file;
mod errno;
mod filesystem;
mod gate;
mod mount;
mod mount_point;

pub use mount::{Mount, MountOptions};
pub use mount_point::MountError;
