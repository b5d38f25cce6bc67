//! Streaming conversion between raw, QED and QCOW2 disk images, comparison and measuring.
//!
//! [`convert`] copies any [`qed_core::VirtualDisk`] to a [`Target`], sparse on both sides and on
//! several threads. [`chain`] opens an image with all below it, [`qcow2`] is the other format, and
//! [`in_place`] changes the format of a file that is there.
#![forbid(unsafe_code)]

pub mod chain;
pub mod commit;
pub mod compare;
mod convert;
pub mod in_place;
mod jobs;
mod kind;
pub mod measure;
mod progress;
pub mod qcow2;
mod qcow2_backing;
pub mod rebase;
mod target;
mod zero;

pub use convert::{ConvertError, ConvertOptions, Order, Summary, WriteAction, convert};
pub use progress::{NoProgress, Progress};
pub use target::{NewBacking, Target, TargetContent};
pub use zero::is_zero;
