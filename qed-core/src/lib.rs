//! Read, write and allocate in QED disk images.
#![forbid(unsafe_code)]

mod backing;

pub use backing::{
    BackingError, BackingFile, BackingFormat, BackingGate, BackingRequest, GateError, GuestExtent,
    GuestExtentKind, RefuseBacking,
};
