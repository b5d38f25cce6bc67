//! What the ring synchronises with: atomics of the standard library here, those of a model checker where
//! `tests/interleavings` compiles it.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
