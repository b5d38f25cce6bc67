//! A reader for QCOW2 images: all that QEMU writes, except encrypted ones and external data files.
//!
//! Owns the open image and its reads. Nothing here writes, and refcounts are never consulted: the
//! tables are the truth about the guest's bytes.

mod bitmaps;
mod cluster_cache;
mod decompress;
mod entry;
mod error;
mod extensions;
mod feature_fields;
mod geometry;
mod header;
mod luks;
mod mapping;
mod open;
mod parse;
mod raw;
mod references;
mod slice_cache;
mod snapshot;

pub use bitmaps::Qcow2Bitmap;
pub(crate) use entry::{Cluster, ClusterKind, CompressedRange};
pub use error::{
    Qcow2Corruption, Qcow2EntryFault, Qcow2FormatError, Qcow2OpenError, Qcow2Part, Qcow2ReadError,
    Qcow2StreamFault,
};
pub use feature_fields::UnknownFeature;
pub(crate) use header::Unsupported;
pub use header::{Qcow2DataFile, Qcow2Encryption, Qcow2Header};
pub use luks::{LuksHeader, LuksSlot};
pub use open::Qcow2Options;
pub(crate) use references::References;
pub use snapshot::{Qcow2SnapshotInfo, Qcow2SnapshotSelector};

pub use crate::qcow2_backing::{Qcow2Backing, SetQcow2BackingError, set_qcow2_backing};
pub use crate::target::qcow2::{
    Preallocation, Qcow2Compression, Qcow2CreateOptions, Qcow2OptionError, Qcow2Version,
    create_qcow2,
};

use std::sync::Arc;

use qed_core::{BackingError, GuestExtent, GuestExtentKind, VirtualDisk, read_backing};
use qed_io::Storage;
use qed_spec::{GuestOffset, HostOffset};

use cluster_cache::ClusterCache;
use decompress::{DecompressError, Decompressors};
use entry::Unit;
use mapping::{Mapping, Run};

/// A QCOW2 image, or one of its internal snapshots, open for reading by any number of threads.
#[derive(Debug)]
pub struct Qcow2Image {
    storage: Arc<dyn Storage>,
    header: Qcow2Header,
    snapshots: Vec<Qcow2SnapshotInfo>,
    /// Bytes of the virtual disk, of the snapshot if one is open.
    image_size: u64,
    mapping: Mapping,
    backing: Option<Arc<dyn VirtualDisk>>,
    decompressors: Decompressors,
    clusters: ClusterCache,
}

impl Qcow2Image {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &Qcow2Header {
        &self.header
    }

    /// The internal snapshots in the order of the image.
    #[must_use]
    pub fn snapshots(&self) -> &[Qcow2SnapshotInfo] {
        &self.snapshots
    }

    /// Bytes of the virtual disk: of the snapshot, if one is open.
    #[must_use]
    pub fn image_size(&self) -> u64 {
        self.image_size
    }

    /// The backing file that the gate opened.
    #[must_use]
    pub fn backing(&self) -> Option<&Arc<dyn VirtualDisk>> {
        self.backing.as_ref()
    }

    /// Fills `buf` with the guest's bytes from `at`, through the backing chain.
    ///
    /// A compressed cluster that `buf` has room for as a whole is decompressed into it; of others
    /// the last few are kept, so that sequential small reads decompress each once. Reading whole
    /// clusters, aligned, is the fast way through an image.
    ///
    /// # Errors
    /// [`Qcow2ReadError::OutOfRange`] unless the whole range lies inside the virtual disk; errors
    /// of tables, data and backing file. `buf` is unspecified after an error.
    pub fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<(), Qcow2ReadError> {
        self.check_range(at, buf.len() as u64)?;
        let (mut rest, mut at) = (buf, at);
        while !rest.is_empty() {
            let run = self.mapping.run(at, rest.len() as u64)?;
            let len = usize::try_from(run.len).expect("at most the buffer's length");
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            self.read_run(now, at, run.unit)?;
            at = GuestOffset::new(at.get() + run.len);
            rest = later;
        }
        Ok(())
    }

    fn check_range(&self, at: GuestOffset, len: u64) -> Result<(), Qcow2ReadError> {
        match at.checked_add(len) {
            Some(end) if end.get() <= self.image_size => Ok(()),
            _ => Err(Qcow2ReadError::OutOfRange { at: at.get(), len, image_size: self.image_size }),
        }
    }

    fn read_run(&self, buf: &mut [u8], at: GuestOffset, unit: Unit) -> Result<(), Qcow2ReadError> {
        match unit {
            Unit::Data(host) => {
                self.read_or_zeros(buf, host).map_err(Qcow2ReadError::io(Qcow2Part::Data, host))
            }
            Unit::Zero => {
                buf.fill(0);
                Ok(())
            }
            Unit::Unallocated => Ok(read_backing(self.backing.as_deref(), buf, at.get())?),
            Unit::Compressed(range) => self.read_compressed(buf, at, range),
        }
    }

    /// Reads a part of a compressed cluster.
    fn read_compressed(
        &self,
        buf: &mut [u8],
        at: GuestOffset,
        range: CompressedRange,
    ) -> Result<(), Qcow2ReadError> {
        let start = self.header.geometry().cluster_start(at);
        let cluster_size = self.header.cluster_size();
        if buf.len() as u64 == cluster_size {
            return self.decompress(buf, start, range);
        }
        let cluster = match self.clusters.find(range.offset) {
            Some(cluster) => cluster,
            None => {
                let mut bytes = vec![0; usize::try_from(cluster_size).expect("at most 2 MiB")];
                self.decompress(&mut bytes, start, range)?;
                let cluster = Arc::<[u8]>::from(bytes);
                self.clusters.insert(range.offset, Arc::clone(&cluster));
                cluster
            }
        };
        let within = usize::try_from(at.get() - start.get()).expect("inside a cluster");
        buf.copy_from_slice(&cluster[within..within + buf.len()]);
        Ok(())
    }

    fn decompress(
        &self,
        cluster: &mut [u8],
        guest: GuestOffset,
        range: CompressedRange,
    ) -> Result<(), Qcow2ReadError> {
        let len = usize::try_from(range.len).expect("at most twice a cluster");
        let host = range.offset;
        let read = |input: &mut [u8]| self.read_or_zeros(input, host);
        self.decompressors.run(len, cluster, read).map_err(|error| match error {
            DecompressError::Stream(fault) => Qcow2Corruption::Stream { guest, host, fault }.into(),
            DecompressError::Read(source) => Qcow2ReadError::io(Qcow2Part::Data, host)(source),
            DecompressError::Setup(source) => Qcow2ReadError::Decompressor(source),
        })
    }

    /// Reads the file; bytes past its end are zeros, since QEMU may leave the last cluster short.
    fn read_or_zeros(&self, buf: &mut [u8], host: HostOffset) -> std::io::Result<()> {
        match self.storage.read_at(buf, host.get()) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                let there = self.storage.len()?.saturating_sub(host.get());
                let there = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
                let (there, past_end) = buf.split_at_mut(there);
                past_end.fill(0);
                self.storage.read_at(there, host.get())
            }
            read => read,
        }
    }

    /// The extent of the run at `at`; compressed clusters are joined, the rest ends with its run.
    fn extent(&self, at: GuestOffset, max_len: u64) -> Result<GuestExtent, Qcow2ReadError> {
        self.check_range(at, 0)?;
        let max_len = max_len.min(self.image_size - at.get());
        if max_len == 0 {
            return Ok(GuestExtent { len: 0, depth: 0, kind: GuestExtentKind::Unallocated });
        }
        let run = self.mapping.run(at, max_len)?;
        let here = |len, kind| GuestExtent { len, depth: 0, kind };
        Ok(match run.unit {
            Unit::Data(host) => here(run.len, GuestExtentKind::Data { host_offset: host.get() }),
            Unit::Zero => here(run.len, GuestExtentKind::Zero),
            Unit::Compressed(_) => {
                here(self.compressed_len(at, run.len, max_len), GuestExtentKind::Compressed)
            }
            Unit::Unallocated => self.extent_below(at, run.len)?,
        })
    }

    /// Bytes from `at` that are compressed, at most `max_len`; the first `len` are known to be.
    /// What cannot be read ends the run: the read that gets there reports it.
    fn compressed_len(&self, at: GuestOffset, mut len: u64, max_len: u64) -> u64 {
        while len < max_len {
            let next = GuestOffset::new(at.get() + len);
            match self.mapping.run(next, max_len - len) {
                Ok(Run { len: more, unit: Unit::Compressed(_) }) => len += more,
                _ => break,
            }
        }
        len
    }

    fn extent_below(&self, at: GuestOffset, len: u64) -> Result<GuestExtent, Qcow2ReadError> {
        let covers = |backing: &&Arc<dyn VirtualDisk>| at.get() < backing.len();
        let Some(backing) = self.backing.as_ref().filter(covers) else {
            return Ok(GuestExtent { len, depth: 0, kind: GuestExtentKind::Unallocated });
        };
        let below = backing.extent_at(at.get(), len)?;
        Ok(GuestExtent { depth: below.depth.saturating_add(1), ..below })
    }
}

impl VirtualDisk for Qcow2Image {
    fn len(&self) -> u64 {
        self.image_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let read = Self::read_at(self, buf, GuestOffset::new(offset));
        read.map_err(|error| BackingError::new(offset, error.kind(), error))
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let extent = self.extent(GuestOffset::new(offset), max_len);
        extent.map_err(|error| BackingError::new(offset, error.kind(), error))
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        match depth.checked_sub(1) {
            None => Some(&self.storage),
            Some(below) => self.backing.as_ref()?.data_storage(offset, below),
        }
    }
}
