//! The QED disk image format: bytes to meaning and back.
//!
//! Everything here is computed from bytes the caller hands in: no I/O, no allocation, no `unsafe`.
//! What a function accepts is a clause of the specification, `docs/format.md`; clause ids stand in
//! `spec:` comments beside the code that implements them.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod addr;
mod backing_name;
mod entry;
mod error;
mod features;
mod geometry;
mod header;
mod parse;
mod raw;

pub use addr::{
    ClusterCount, GuestCluster, GuestOffset, HostCluster, HostOffset, L1Index, L2Index,
};
pub use backing_name::{BackingName, MAX_BACKING_NAME_LEN_BYTES};
pub use entry::{L1Entry, L2Entry};
pub use error::{BackingNameError, EntryError, HeaderError};
pub use features::{AutoclearFeatures, CompatFeatures, Features};
pub use geometry::{Geometry, Lookup};
pub use header::{Header, HeaderFields};
pub use raw::{HEADER_LEN_BYTES, RawHeader, TableEntry};
