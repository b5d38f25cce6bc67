//! Whose each cluster of the image file is, and where new ones come from.
//!
//! Knows no tables, no cache and no image: a reader of tables asks here what an entry may name.

pub(crate) mod alloc;
pub(crate) mod claims;
pub(crate) mod cross_links;
pub(crate) mod end;
pub(crate) mod guards;
pub(crate) mod owner;
pub(crate) mod streams;

use std::sync::Arc;

use qed_io::Storage;
use qed_spec::Geometry;

use crate::space::alloc::Allocator;
use crate::space::claims::Claims;
use crate::space::guards::Drain;
use crate::space::owner::SpaceMap;
use crate::space::streams::Streams;

/// The space of a writable image.
#[derive(Debug)]
pub(crate) struct Space {
    /// What entries may name; the map asks it, too.
    pub(crate) owner: Arc<SpaceMap>,
    pub(crate) alloc: Allocator,
    pub(crate) streams: Streams,
    pub(crate) claims: Claims,
    pub(crate) guards: Drain,
}

impl Space {
    /// The space of an image that has `file_len` bytes when it is opened.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        geometry: Geometry,
        file_len: u64,
        owner: Arc<SpaceMap>,
    ) -> Self {
        Self {
            owner,
            alloc: Allocator::new(storage, geometry, file_len),
            streams: Streams::new(geometry),
            claims: Claims::default(),
            guards: Drain::default(),
        }
    }
}
