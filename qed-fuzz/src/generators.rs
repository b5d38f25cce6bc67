//! Generators: from arbitrary bytes to images and operations that exercise something.

pub(crate) mod image_plan;
pub(crate) mod operations;
