//! A writable image: the five owners, composed. No logic.

mod adopt;
pub(crate) mod allocation;
pub(crate) mod amend;
mod backing_name;
pub(crate) mod compact;
pub(crate) mod discard;
pub(crate) mod extents;
mod flush;
pub(crate) mod io;
mod open;
pub(crate) mod read_only;
mod replay;
pub(crate) mod request;
pub(crate) mod resize;
mod sweep;
pub(crate) mod view;
mod windows;

use std::sync::Arc;

use qed_io::Storage;
use qed_spec::{Geometry, Header};

use crate::change::Pending;
use crate::data::DataPath;
use crate::data::disk::VirtualDisk;
use crate::durability::Durability;
use crate::durability::lock::Cx;
use crate::head::Head;
use crate::map::tables::Tables;
use crate::space::Space;

/// A QED image open for reading and writing, by any number of threads. See the crate's example.
#[derive(Debug)]
pub struct Image {
    /// What the image says of itself.
    head: Head,
    /// What a guest range maps to.
    map: Tables,
    /// Whose each cluster of the file is.
    space: Space,
    /// Where guest bytes touch the storage.
    data: DataPath,
    /// The changes that no flush has taken yet.
    pending: Pending,
    /// How changes become durable.
    durability: Durability,
}

impl Image {
    /// The header as it is in the file.
    #[must_use]
    pub fn header(&self) -> Header {
        self.head.header()
    }

    /// Cluster and table size.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.map.geometry
    }

    /// Bytes of the virtual disk.
    #[must_use]
    pub fn image_size(&self) -> u64 {
        self.head.image_size()
    }

    /// The backing file name as the image has it.
    #[must_use]
    pub fn backing_name(&self) -> Option<Vec<u8>> {
        self.head.backing_name()
    }

    /// The backing file that the gate opened.
    #[must_use]
    pub fn backing(&self) -> Option<&Arc<dyn VirtualDisk>> {
        self.data.backing()
    }

    /// The storage that holds the image.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        self.head.storage()
    }

    /// The storage in which the host offsets of [`crate::Request`] hold guest bytes as they are; `None`
    /// where they do not, and only the image reads and writes them.
    #[must_use]
    pub fn direct(&self) -> Option<&Arc<dyn Storage>> {
        self.data.direct()
    }

    /// The owners that a step of durability works with.
    fn cx(&self) -> Cx<'_> {
        let owners = (&self.head, &self.map, &self.space);
        Cx::new(owners, &self.pending, self.data.is_backed_flag())
    }
}
