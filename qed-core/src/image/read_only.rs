//! An image open for reading: the mapping, the backing file and the reads that use both.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qed_io::{ImageLock, Storage};
use qed_spec::{Features, Geometry, GuestOffset, Header, HostOffset};

use crate::data::disk::{BackingError, GuestExtent, GuestExtentKind, VirtualDisk, read_backing};
use crate::durability::log::show_replayed;
use crate::error::{ImageError, IoAction, OpenError};
use crate::head::mode::is_active;
use crate::head::sector::HeaderSector;
use crate::map::tables::{Extent, ExtentKind, Tables, Vetting};
use crate::options::{LockPolicy, ReadContext, open_backing};
use crate::space::guards::Drain;

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
    pub(crate) tables: Tables,
    pub(crate) sector: Mutex<HeaderSector>,
    pub(crate) image_size: AtomicU64,
    pub(crate) drain: Drain,
    backing_name: Mutex<Option<Vec<u8>>>,
    backing: Option<Arc<dyn VirtualDisk>>,
    /// A backing file is open, or the header names one that whoever opens the image next may see.
    pub(crate) is_backed: AtomicBool,
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
        let dirty = sector.header().features().contains(Features::NEED_CHECK);
        let vetting = Vetting::AsMet { dangling_reads_unallocated: dirty };
        if is_active(sector.header()) {
            let shown = show_replayed(&storage)?.ok_or(OpenError::NoJournal)?.storage;
            let file_len = storage_len(&*shown)?;
            return Self::with_sector(shown, sector, file_len, context, vetting);
        }
        Self::with_sector(storage, sector, file_len, context, vetting)
    }

    pub(crate) fn with_sector(
        storage: Arc<dyn Storage>,
        sector: HeaderSector,
        file_len: u64,
        context: &ReadContext<'_>,
        vetting: Vetting,
    ) -> Result<Self, OpenError> {
        let header = *sector.header();
        let backing_name = sector.read_backing_name(&*storage)?;
        let backing = open_backing(context.gate, &*storage, &header, backing_name.as_deref())?;
        let tables = Tables::open(storage, &header, file_len, context.cache_limit_bytes, vetting)?;
        Ok(Self {
            tables,
            sector: Mutex::new(sector),
            image_size: AtomicU64::new(header.image_size()),
            drain: Drain::default(),
            is_backed: AtomicBool::new(backing.is_some() || backing_name.is_some()),
            backing_name: Mutex::new(backing_name),
            backing,
        })
    }

    /// The header as it is in the file.
    #[must_use]
    pub fn header(&self) -> Header {
        *self.sector().header()
    }

    /// Cluster and table size.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.tables.geometry
    }

    /// Bytes of the virtual disk.
    #[must_use]
    pub fn image_size(&self) -> u64 {
        self.image_size.load(Ordering::Acquire)
    }

    /// The backing file name as the image has it.
    #[must_use]
    pub fn backing_name(&self) -> Option<Vec<u8>> {
        self.backing_name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The backing file that the gate opened.
    #[must_use]
    pub fn backing(&self) -> Option<&Arc<dyn VirtualDisk>> {
        self.backing.as_ref()
    }

    /// The storage that holds the image.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.tables.storage
    }

    /// Maps the longest run of guest bytes from `at` that one mapping of this image serves, at
    /// most `len` bytes.
    ///
    /// The backing file is not asked. Reads tables, never data. The run is shorter where a 4 KiB
    /// slice of an L2 table ends. On a writable image a host offset stays valid until the virtual
    /// disk shrinks; [`crate::Image::request`] keeps that from happening.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`] unless `at..at + len` lies inside the virtual disk, or a table
    /// that cannot be read or is corrupt.
    // spec: QED-MAP-01
    pub fn map(&self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        let _request = self.drain.enter();
        self.check_range(at, len)?;
        self.run(at, len)
    }

    /// Fills `buf` with the guest's bytes from `at`, through the backing chain.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`] unless the whole range lies inside the virtual disk; errors of
    /// tables, data and backing file. `buf` is unspecified after an error.
    // spec: QED-RW-01
    pub fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<(), ImageError> {
        let _request = self.drain.enter();
        self.read_in_request(buf, at)
    }

    /// As [`ReadOnlyImage::read_at`], for a caller that holds a request.
    pub(crate) fn read_in_request(
        &self,
        buf: &mut [u8],
        at: GuestOffset,
    ) -> Result<(), ImageError> {
        self.check_range(at, buf.len() as u64)?;
        let (mut rest, mut at) = (buf, at);
        while !rest.is_empty() {
            let extent = self.run(at, rest.len() as u64)?;
            let len = usize::try_from(extent.len).expect("at most the buffer's length");
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            self.read_extent(now, at, extent.kind)?;
            at = at.checked_add(extent.len).expect("inside the virtual disk");
            rest = later;
        }
        Ok(())
    }

    pub(crate) fn run(&self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        if len == 0 {
            return Ok(Extent { len: 0, kind: ExtentKind::Unallocated });
        }
        self.tables.run(at, len)
    }

    pub(crate) fn check_range(&self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        let image_size = self.image_size();
        match at.checked_add(len) {
            Some(end) if end.get() <= image_size => Ok(()),
            _ => Err(ImageError::out_of_range(at, len, image_size)),
        }
    }

    pub(crate) fn sector(&self) -> MutexGuard<'_, HeaderSector> {
        self.sector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_backing_name(&self, name: Option<Vec<u8>>) {
        *self.backing_name.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// Whether what is unallocated may read as something else than zeros, now or when the image is
    /// opened again.
    pub(crate) fn is_backed(&self) -> bool {
        self.is_backed.load(Ordering::Acquire)
    }

    /// Whether an unallocated byte at or after `at` may read as something else than zero.
    pub(crate) fn backing_covers(&self, at: GuestOffset) -> bool {
        self.backing.as_ref().is_some_and(|backing| at.get() < backing.len())
    }

    /// As [`read_backing`], of the backing file that is open.
    pub(crate) fn read_backing(&self, buf: &mut [u8], at: GuestOffset) -> Result<(), ImageError> {
        Ok(read_backing(self.backing.as_deref(), buf, at.get())?)
    }

    fn read_extent(
        &self,
        buf: &mut [u8],
        at: GuestOffset,
        kind: ExtentKind,
    ) -> Result<(), ImageError> {
        match kind {
            ExtentKind::Data(host) => self.read_data(buf, host),
            ExtentKind::Zero => {
                buf.fill(0);
                Ok(())
            }
            ExtentKind::Unallocated => self.read_backing(buf, at),
        }
    }

    fn read_data(&self, buf: &mut [u8], host: HostOffset) -> Result<(), ImageError> {
        let read = self.tables.storage.read_at(buf, host.get());
        read.map_err(ImageError::io(IoAction::ReadData, host))
    }
}

impl VirtualDisk for ReadOnlyImage {
    fn len(&self) -> u64 {
        self.image_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        Self::read_at(self, buf, GuestOffset::new(offset)).map_err(|error| at(offset, error))
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let max_len = max_len.min(self.image_size().saturating_sub(offset));
        let guest = GuestOffset::new(offset);
        let mut extent = self.map(guest, max_len).map_err(|error| at(offset, error))?;
        if extent.kind == ExtentKind::Unallocated {
            extent.len = self.tables.unallocated_len(guest, extent.len, max_len);
        }
        let of_this_image = |kind| GuestExtent { len: extent.len, depth: 0, kind };
        let backing = self.backing.as_ref().filter(|backing| offset < backing.len());
        Ok(match (extent.kind, backing) {
            (ExtentKind::Data(host), _) => {
                of_this_image(GuestExtentKind::Data { host_offset: host.get() })
            }
            (ExtentKind::Zero, _) => of_this_image(GuestExtentKind::Zero),
            (ExtentKind::Unallocated, Some(backing)) => {
                let below = backing.extent_at(offset, extent.len)?;
                GuestExtent { depth: below.depth.saturating_add(1), ..below }
            }
            // No backing file, or the end of a shorter one is behind.
            (ExtentKind::Unallocated, None) => of_this_image(GuestExtentKind::Unallocated),
        })
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        match depth.checked_sub(1) {
            None => Some(&self.tables.storage),
            Some(below) => self.backing.as_ref()?.data_storage(offset, below),
        }
    }
}

pub(crate) fn storage_len(storage: &dyn Storage) -> Result<u64, ImageError> {
    storage.len().map_err(ImageError::io(IoAction::Resize, HostOffset::new(0)))
}

fn at(offset: u64, error: ImageError) -> BackingError {
    BackingError::new(offset, error.kind(), error)
}
