//! Opening a QCOW2 image: lock, header, snapshots, backing file, in this order.

use std::sync::Arc;

use qed_core::{
    BackingFormat, BackingGate, BackingRequest, DEFAULT_CACHE_LIMIT_BYTES, LockPolicy, VirtualDisk,
};
use qed_io::{ImageLock, Storage};
use qed_spec::HostOffset;

use super::Qcow2Image;
use super::bitmaps::{Qcow2Bitmap, read_bitmaps};
use super::cluster_cache::ClusterCache;
use super::decompress::Decompressors;
use super::entry::EntryRules;
use super::error::{Qcow2OpenError, Qcow2Part};
use super::header::{PREFIX_LEN, Qcow2Header, Unsupported, cluster_size};
use super::mapping::Mapping;
use super::snapshot::{Qcow2SnapshotInfo, Qcow2SnapshotSelector, read_snapshots, select};

/// How a QCOW2 image is opened.
#[derive(Clone)]
pub struct Qcow2Options<'a> {
    /// Decides about the backing file.
    pub gate: &'a dyn BackingGate,
    /// Whether the image lock is taken.
    pub lock: LockPolicy,
    /// Bytes of tables kept in memory.
    pub cache_limit_bytes: u64,
    /// The internal snapshot to read instead of the image as it is now.
    pub snapshot: Option<Qcow2SnapshotSelector>,
}

impl<'a> Qcow2Options<'a> {
    /// The image as it is now, with the default cache limit.
    #[must_use]
    pub fn new(gate: &'a dyn BackingGate, lock: LockPolicy) -> Self {
        Self { gate, lock, cache_limit_bytes: DEFAULT_CACHE_LIMIT_BYTES, snapshot: None }
    }
}

impl Qcow2Header {
    /// Reads the header of the image in `storage`; takes no lock.
    ///
    /// # Errors
    /// The storage's error, or why the image is refused.
    pub fn read(storage: &dyn Storage) -> Result<Self, Qcow2OpenError> {
        Self::read_as(storage, Unsupported::Refused)
    }

    /// As [`Qcow2Header::read`]; what is not supported is refused or kept, to be shown.
    pub(crate) fn read_as(
        storage: &dyn Storage,
        unsupported: Unsupported,
    ) -> Result<Self, Qcow2OpenError> {
        let io = |source| {
            let (what, at) = (Qcow2Part::Header, HostOffset::new(0));
            Qcow2OpenError::Io { what, at, source }
        };
        let file_len = storage.len().map_err(io)?;
        let read = |len: u64| {
            let mut bytes = vec![0; usize::try_from(len.min(file_len)).unwrap_or_default()];
            storage.read_at(&mut bytes, 0).map(|()| bytes).map_err(io)
        };
        let cluster_size = cluster_size(&read(PREFIX_LEN)?)?;
        Ok(Self::parse_as(&read(cluster_size)?, file_len, unsupported)?)
    }
}

impl Qcow2Header {
    /// As [`Qcow2Image::read_bitmaps`] for the image in `storage`, which is not opened.
    ///
    /// # Errors
    /// The storage's error, or a directory that breaks a rule.
    pub fn read_bitmaps(&self, storage: &dyn Storage) -> Result<Vec<Qcow2Bitmap>, Qcow2OpenError> {
        read_bitmaps(storage, self, file_len(storage)?)
    }
}

impl Qcow2Image {
    /// Opens the QCOW2 image in `storage`; writes nothing, now or later.
    ///
    /// An image that is dirty or marked corrupt opens: [`Qcow2Header::is_dirty`] and
    /// [`Qcow2Header::is_corrupt`] say so. A snapshot has its own virtual size, unlike in QEMU,
    /// which gives it that of the image.
    ///
    /// # Errors
    /// A held lock, a header or snapshot table that breaks a rule, a feature that is not
    /// supported, a snapshot that does not exist, a backing file that the gate refuses. Bad table
    /// entries are reported when a request meets them.
    pub fn open(
        storage: Arc<dyn Storage>,
        options: &Qcow2Options<'_>,
    ) -> Result<Self, Qcow2OpenError> {
        if options.lock == LockPolicy::Take {
            storage.lock(ImageLock::READ)?;
        }
        let header = Qcow2Header::read(&*storage)?;
        let file_len = file_len(&*storage)?;
        let snapshots = read_snapshots(&*storage, &header, file_len)?;
        let (l1, image_size) = match &options.snapshot {
            Some(wanted) => select(wanted, &snapshots, &header, file_len)?,
            None => (header.l1(), header.image_size()),
        };
        let backing = open_backing(options.gate, &header)?;
        let has_zero_flag = header.version() >= 3;
        let rules = EntryRules { geometry: header.geometry(), has_zero_flag, file_len };
        Ok(Self {
            mapping: Mapping::new(Arc::clone(&storage), rules, l1, options.cache_limit_bytes),
            storage,
            snapshots: snapshots.into_iter().map(|snapshot| snapshot.info).collect(),
            image_size,
            backing,
            decompressors: Decompressors::new(header.compression()),
            clusters: ClusterCache::new(header.cluster_size()),
            header,
        })
    }

    /// Reads the list of persistent dirty bitmaps; empty where the image says that its list does
    /// not fit its data.
    ///
    /// # Errors
    /// The storage's error, or a directory that breaks a rule.
    pub fn read_bitmaps(&self) -> Result<Vec<Qcow2Bitmap>, Qcow2OpenError> {
        self.header.read_bitmaps(&*self.storage)
    }

    /// Reads the snapshot list of the image in `storage`, whose header is `header`, without opening
    /// the image.
    ///
    /// # Errors
    /// The storage's error, or a table that breaks a rule.
    pub fn read_snapshots(
        storage: &dyn Storage,
        header: &Qcow2Header,
    ) -> Result<Vec<Qcow2SnapshotInfo>, Qcow2OpenError> {
        let snapshots = read_snapshots(storage, header, file_len(storage)?)?;
        Ok(snapshots.into_iter().map(|snapshot| snapshot.info).collect())
    }
}

fn open_backing(
    gate: &dyn BackingGate,
    header: &Qcow2Header,
) -> Result<Option<Arc<dyn VirtualDisk>>, Qcow2OpenError> {
    let Some(name) = header.backing_name() else {
        return Ok(None);
    };
    let format = match header.backing_format() {
        Some(b"raw") => BackingFormat::Raw,
        Some(format) => BackingFormat::Named(String::from_utf8_lossy(format).into_owned()),
        None => BackingFormat::Unstated,
    };
    gate.open_backing(BackingRequest { name, format })
        .map_err(|source| Qcow2OpenError::Gate { name: name.to_string(), source })
}

fn file_len(storage: &dyn Storage) -> Result<u64, Qcow2OpenError> {
    let (what, at) = (Qcow2Part::Header, HostOffset::new(0));
    storage.len().map_err(|source| Qcow2OpenError::Io { what, at, source })
}
