//! From guest ranges to places in the image file.

pub(crate) mod cache;
pub(crate) mod index;
pub(crate) mod l1;
pub(crate) mod mapping;
pub(crate) mod slice;
pub(crate) mod tables;
pub(crate) mod used_end;
pub(crate) mod walk;
