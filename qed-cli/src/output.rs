//! What commands print: sizes, JSON and progress in `qemu-img`'s forms.

mod human_size;
mod json;
mod progress;
mod snapshots;

pub(crate) use human_size::human_size;
pub(crate) use json::{json_bytes, text, unless_empty, write_json};
pub(crate) use progress::Progress;
pub(crate) use snapshots::{date, snapshot_list, snapshots_json};
