//! The specification as something that can be run: vectors, what drives an implementation with
//! them, and the report clause by clause.
//!
//! `README.md` beside this crate says how to hold any implementation against the vectors.
#![forbid(unsafe_code)]

mod clause;
mod vector;

pub use clause::{Clauses, Level};
pub use vector::{
    AnchorExpect, BackingFile, BackingFormats, BackingName, Bytes, CheckOutcome, Content,
    ContentBytes, Contents, Contradiction, Expect, Header, HeaderFields, IMAGE_NAME, LoadError,
    MapKind, MapRun, Mapping, Opening, Places, QemuDiffers, Rejected, Run, StoredFormat,
    SuperblockCurrent, SuperblockExpect, Vector, VectorError, VectorProblem, lay, load,
};
