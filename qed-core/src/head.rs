//! Sector 0 and the superblock of an image.

pub(crate) mod compat;
pub(crate) mod create;
pub(crate) mod mode;
pub(crate) mod sector;
pub(crate) mod stored_format;
pub(crate) mod superblock;
