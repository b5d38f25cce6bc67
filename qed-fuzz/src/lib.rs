//! Generators and oracles for QED images: what tests and benchmarks of several crates share.
#![forbid(unsafe_code)]

mod fabricate;

pub use fabricate::{Fabrication, Order, fabricate};
