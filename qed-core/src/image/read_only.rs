//! An image open for reading.

use std::sync::Arc;

use qed_io::{ImageLock, PieceMut, Storage};
use qed_spec::{Features, Geometry, GuestOffset, Header};

use crate::data::DataPath;
use crate::data::disk::{BackingError, GuestExtent, VirtualDisk};
use crate::durability::log::replayed::show_replayed;
use crate::error::{ImageError, OpenError};
use crate::head::Head;
use crate::head::mode::is_active;
use crate::head::sector::{HeaderSector, storage_len};
use crate::image::view::{View, at};
use crate::map::l1::L1Table;
use crate::map::mapping::Extent;
use crate::map::tables::{Tables, Validation};
use crate::options::{LockPolicy, ReadContext, open_backing};
use crate::space::owner::SpaceMap;

/// A QED image that can be read and mapped, by any number of threads, and never written.
///
/// ```
/// use std::sync::Arc;
/// use qed_core::{CreateOptions, LockPolicy, ReadContext, ReadOnlyImage, RefuseBacking, create};
/// use qed_io::MemoryStorage;
/// use qed_spec::GuestOffset;
///
/// let storage = Arc::new(MemoryStorage::default());
/// create(&*storage, &CreateOptions::new(1 << 30))?;
/// let context = ReadContext::new(&RefuseBacking, LockPolicy::Take);
/// let image = ReadOnlyImage::open(storage, &context)?;
/// let mut sector = [1; 512];
/// image.read_at(&mut sector, GuestOffset::new(0))?;
/// assert_eq!(sector, [0; 512]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ReadOnlyImage {
    head: Head,
    map: Tables,
    data: DataPath,
}

impl ReadOnlyImage {
    /// Opens the QED image in `storage`; writes nothing, now or later.
    ///
    /// An image that was not closed cleanly opens as it is: entries that name space past the end
    /// of the file read as unallocated, and what its journal holds is shown without being written.
    ///
    /// # Errors
    /// A held lock, a header that breaks a rule, a backing file that the gate refuses, tables that
    /// cannot be read. Bad table slots are reported when a request meets them.
    // spec: QED-CONS-04, QED-JRN-23
    pub fn open(storage: Arc<dyn Storage>, context: &ReadContext<'_>) -> Result<Self, OpenError> {
        if context.lock == LockPolicy::Take {
            storage.lock(ImageLock::READ)?;
        }
        let file_len = storage_len(&*storage)?;
        let sector = HeaderSector::read(&*storage, file_len)?;
        let header = *sector.header();
        let (storage, file_len) = if is_active(&header) {
            let shown = show_replayed(&storage)?.ok_or(OpenError::NoJournal)?.storage;
            let file_len = storage_len(&*shown)?;
            (shown, file_len)
        } else {
            (storage, file_len)
        };
        let backing_name = sector.read_backing_name(&*storage)?;
        let name = backing_name.as_deref();
        let backing = open_backing(context.gate, &*storage, &header, name)?;
        let data = DataPath::new(storage.clone(), backing, name.is_some());
        let dirty = header.features().contains(Features::NEED_CHECK);
        let map = Tables::new(
            storage.clone(),
            L1Table::read(&*storage, &header)?,
            context.cache_limit_bytes,
            None,
            Arc::new(SpaceMap::for_reading(&header, file_len)),
            Validation::Lazy { dangling_reads_unallocated: dirty },
        );
        Ok(Self { head: Head::new(storage, sector, None, backing_name), map, data })
    }

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

    /// Maps the longest run of guest bytes from `at` that one mapping of this image serves, at
    /// most `len` bytes.
    ///
    /// The backing file is not asked. Reads tables, never data. The run is shorter where a 4 KiB
    /// slice of an L2 table ends.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`] unless `at..at + len` lies inside the virtual disk, or a table
    /// that cannot be read or is corrupt.
    // spec: QED-MAP-01
    pub fn map(&self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        self.view().map(at, len)
    }

    /// Fills `buf` with the guest's bytes from `at`, through the backing chain.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`] unless the whole range lies inside the virtual disk; errors of
    /// tables, data and backing file. `buf` is unspecified after an error.
    pub fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<(), ImageError> {
        self.view().read(buf, at)
    }

    /// As [`ReadOnlyImage::read_at`], into several pieces one after the other, which may lie in memory that
    /// others use.
    ///
    /// # Errors
    /// As [`ReadOnlyImage::read_at`].
    pub fn read_vectored_at(
        &self,
        pieces: &mut [PieceMut<'_>],
        at: GuestOffset,
    ) -> Result<(), ImageError> {
        self.view().read_pieces(pieces, at)
    }

    fn view(&self) -> View<'_> {
        View { head: &self.head, map: &self.map, data: &self.data }
    }
}

impl VirtualDisk for ReadOnlyImage {
    fn len(&self) -> u64 {
        self.image_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        self.view().read(buf, GuestOffset::new(offset)).map_err(|error| at(offset, error))
    }

    fn read_vectored_at(
        &self,
        pieces: &mut [PieceMut<'_>],
        offset: u64,
    ) -> Result<(), BackingError> {
        self.view().read_pieces(pieces, GuestOffset::new(offset)).map_err(|error| at(offset, error))
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        self.view().extent_at(offset, max_len)
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        self.view().data_storage(offset, depth)
    }
}
