//! Oracles: they return, or they panic and say where an image is not what it must be.

pub(crate) mod chain;
pub(crate) mod compat;
pub(crate) mod confinement;
pub(crate) mod content;
pub(crate) mod dialogue;
pub(crate) mod guest;
pub(crate) mod header;
pub(crate) mod journal;
pub(crate) mod qcow2;
pub(crate) mod qemu;
pub(crate) mod reference;
pub(crate) mod repair;
pub(crate) mod replay;
pub(crate) mod soundness;
pub(crate) mod strict;
pub(crate) mod superblock;
pub(crate) mod validity;
