//! Generators: from arbitrary bytes to images and operations that exercise something.

pub(crate) mod chain_files;
pub(crate) mod conversion;
pub(crate) mod dialogue;
pub(crate) mod disk;
pub(crate) mod header;
pub(crate) mod image;
pub(crate) mod image_plan;
pub(crate) mod number;
pub(crate) mod operations;
pub(crate) mod qcow2;
pub(crate) mod steps;
pub(crate) mod superblock;
pub(crate) mod virtqueue;
