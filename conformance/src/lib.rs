//! The specification as something that can be run: vectors, what drives an implementation with
//! them, and the report clause by clause.
//!
//! `README.md` beside this crate says how to hold any implementation against the vectors.
#![forbid(unsafe_code)]

mod answer;
mod arguments;
mod clause;
mod judge;
mod library;
mod limited;
mod nbd;
mod program;
pub mod records;
mod report;
mod run;
mod text;
mod vector;

pub use answer::{
    AnchorFound, Answer, Answers, Case, DriveError, Implementation, Opened, SuperblockFound,
};
pub use arguments::{Arguments, USAGE, UsageError};
pub use clause::{Clauses, Level};
pub use judge::{Field, FieldResult, Verdict};
pub use library::Library;
pub use limited::Limits;
pub use nbd::Nbd;
pub use program::Program;
pub use report::{
    ClauseRow, Counts, Difference, ReadReportError, Report, VectorResult, read_reports, to_json,
    to_markdown, to_table,
};
pub use run::{RunError, run};
pub use vector::{
    AnchorExpect, BackingFormats, BackingName, Bytes, CheckOutcome, Content, ContentBytes,
    Contents, Contradiction, Expect, Header, HeaderFields, IMAGE_NAME, LoadError, MapKind, MapRun,
    Mapping, Opening, Places, QemuDiffers, Rejected, Run, StoredFormat, SuperblockCurrent,
    SuperblockExpect, Vector, VectorError, VectorProblem, VirtualDisk, lay, load,
};
