//! Consistency check and repair of QED images.
//!
//! [`check`] reads every table of an image and reports what breaks a rule as data; [`repair`] mends
//! it; [`recover`] is what a program runs on an image that was not closed, before it writes to it.
//!
//! **Invariant:** this crate shares no code with the allocator (`qed-core`): a checker that did
//! could not convict it. What it reads with, `qed-layout`, judges nothing. It makes no operating system call; all I/O goes through
//! [`qed_io::Storage`].
#![forbid(unsafe_code)]

mod check;
mod error;
mod explain;
mod finding;
mod kind;
mod layout;
mod metadata;
mod owners;
mod recover;
mod repair;
mod report;
mod scan;
mod space;
mod tables;
mod unused;

pub use check::{CheckOptions, check};
pub use error::{CheckError, RecoverError};
pub use finding::{Class, Finding, FindingKind, Place};
pub use qed_layout::{Checked, CrashLeft, Recovered};
pub use recover::{recover, recovery_hook};
pub use repair::{Repair, repair};
pub use report::{Counts, Repaired, Report, Statistics};
