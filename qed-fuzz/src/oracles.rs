//! Oracles: they return, or they panic and say where an image is not what it must be.

pub(crate) mod content;
pub(crate) mod soundness;
