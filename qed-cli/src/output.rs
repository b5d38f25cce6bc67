//! What commands print: sizes, JSON and progress in `qemu-img`'s forms.

mod human_size;
mod json;
mod progress;

pub(crate) use human_size::human_size;
pub(crate) use json::JsonWriter;
pub(crate) use progress::Progress;
