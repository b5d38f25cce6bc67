//! Whose each cluster of the image file is.

pub(crate) mod alloc;
pub(crate) mod claims;
pub(crate) mod cross_links;
pub(crate) mod guards;
pub(crate) mod streams;
