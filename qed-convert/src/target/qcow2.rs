//! A new QCOW2 image: header cluster, L1 table, then each L2 table before the data of its range,
//! refcounts at the end, header last.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use qed_io::Storage;

use crate::convert::{ConvertError, Turn};
use crate::target::cluster_map::{ClusterMap, EntryFormat, MapShape};
use crate::target::file::TargetFile;
use crate::target::mapped_file::MappedFile;
use crate::target::{Chunk, Content, Shape, SharedRun, Sink};

mod compress;
pub(crate) mod header;
mod options;
mod packer;
pub(crate) mod refcounts;

pub(crate) use options::metadata_len;
pub use options::{
    Preallocation, Qcow2Compression, Qcow2CreateOptions, Qcow2OptionError, Qcow2Version,
};

use compress::{Compressed, Compressor};
use packer::Packer;

/// Set in entries whose cluster has refcount 1.
pub(crate) const COPIED: u64 = 1 << 63;
/// The entry that reads as zeros, version 3 only.
pub(crate) const ZERO: u64 = 1;
/// Offsets in entries have 56 bits.
const MAX_HOST_LEN: u64 = 1 << 56;

pub(crate) struct Qcow2Sink {
    file: MappedFile,
    options: Qcow2CreateOptions,
    /// None: clusters are stored plain. Locked only by the job whose turn it is.
    packer: Option<Mutex<Packer>>,
}

impl Qcow2Sink {
    pub(crate) fn create(
        file: TargetFile,
        options: Qcow2CreateOptions,
        compress: bool,
    ) -> Result<Self, ConvertError> {
        options.validate()?;
        let (cluster_len, refcount_bits) = (options.cluster_len.into(), options.refcount_bits);
        let shape = MapShape {
            cluster_len,
            table_clusters: 1,
            size: options.size,
            zeros_below: options.backing.as_ref().map_or(0, |backing| backing.len),
        };
        let mut limit = MAX_HOST_LEN.min(refcounts::max_file_len(cluster_len, refcount_bits));
        if compress {
            limit = limit.min(packer::max_host_len(cluster_len));
        }
        let format = EntryFormat {
            owned: COPIED,
            zero: (options.version == Qcow2Version::V3).then_some(ZERO),
            encode: u64::to_be_bytes,
            limit,
        };
        let first_free = cluster_len * (1 + options.l1_clusters());
        let file = MappedFile::create(file, shape, format, first_free)?;
        let packer = compress.then(|| Mutex::new(Packer::new(cluster_len, refcount_bits)));
        Ok(Self { file, options, packer })
    }

    fn write_compressed(
        &self,
        packer: &Mutex<Packer>,
        chunk: &Chunk<'_>,
        turn: Turn<'_>,
    ) -> Result<(), ConvertError> {
        let cluster_len = self.options.cluster_len.into();
        let contents = chunk.contents(cluster_len);
        let mut compressor = Compressor::new(self.options.compression, self.options.cluster_len)?;
        let streams = compressor.compress_all(chunk, &contents)?;
        let hosts = self.file.in_turn(turn, |map| {
            let mut packer = packer.lock().unwrap_or_else(PoisonError::into_inner);
            let first = chunk.at / cluster_len;
            let slots = contents.iter().zip(&streams.clusters).zip(first..);
            let placed = slots.map(|((content, stream), cluster)| match (content, stream) {
                (Content::Data, Some(stream)) => place(map, &mut packer, cluster, stream.len()),
                (Content::Data, None) => map.place_data(cluster),
                (Content::Zero, _) => map.place_zero(cluster).map(|()| 0),
                (Content::Kept, _) => Ok(0),
            });
            placed.collect::<Result<Vec<u64>, ConvertError>>()
        })?;
        self.write_streams(&streams, &hosts)?;
        self.write_plain(chunk, &contents, &streams, &hosts)
    }

    /// Writes the streams; those that follow each other in the file in one go.
    fn write_streams(&self, streams: &Compressed, hosts: &[u64]) -> Result<(), ConvertError> {
        let mut run: Option<(u64, Range<usize>)> = None;
        for (stream, host) in streams.clusters.iter().zip(hosts) {
            let Some(stream) = stream else { continue };
            match &mut run {
                Some((start, bytes)) if *start + bytes.len() as u64 == *host => {
                    bytes.end = stream.end;
                }
                _ => {
                    if let Some((start, bytes)) = run.replace((*host, stream.clone())) {
                        self.file.write_data(&streams.bytes[bytes], start)?;
                    }
                }
            }
        }
        match run {
            Some((start, bytes)) => self.file.write_data(&streams.bytes[bytes], start),
            None => Ok(()),
        }
    }

    /// Writes the clusters that did not get smaller.
    fn write_plain(
        &self,
        chunk: &Chunk<'_>,
        contents: &[Content],
        streams: &Compressed,
        hosts: &[u64],
    ) -> Result<(), ConvertError> {
        let cluster_len = usize::try_from(self.options.cluster_len).expect("at most 2 MiB");
        let clusters = chunk.bytes.chunks(cluster_len).zip(contents).zip(&streams.clusters);
        for (((bytes, content), stream), host) in clusters.zip(hosts) {
            if *content == Content::Data && stream.is_none() {
                self.file.write_data(bytes, *host)?;
            }
        }
        Ok(())
    }
}

/// Gives a compressed cluster of `len` bytes its place and its entry; the host offset.
fn place(
    map: &mut ClusterMap,
    packer: &mut Packer,
    cluster: u64,
    len: usize,
) -> Result<u64, ConvertError> {
    // The table, if it is new, comes before the data.
    map.entry(cluster)?;
    let host = packer.place(map, len as u64)?;
    *map.entry(cluster)? = packer.entry(host, len as u64);
    Ok(host)
}

impl Sink for Qcow2Sink {
    fn shape(&self) -> Shape {
        self.file.shape(self.options.backing.is_some().then_some(1))
    }

    fn write(&self, chunk: &Chunk<'_>, turn: Turn<'_>) -> Result<(), ConvertError> {
        match &self.packer {
            Some(packer) => self.write_compressed(packer, chunk, turn),
            None => self.file.write(chunk, turn),
        }
    }

    fn sharing_unit(&self, source: &dyn Storage) -> Option<u64> {
        // Space that was asked for is the image's own.
        let own = matches!(self.options.preallocation, Preallocation::Falloc | Preallocation::Full);
        if own || self.packer.is_some() { None } else { self.file.sharing_unit(source) }
    }

    fn share<'t>(
        &self,
        run: &SharedRun<'_>,
        turn: Turn<'t>,
    ) -> Result<Option<Turn<'t>>, ConvertError> {
        self.file.share(run, turn)
    }

    fn zero(&self, range: Range<u64>, turn: Turn<'_>) -> Result<(), ConvertError> {
        self.file.zero(range, turn)
    }

    fn finish(&self) -> Result<(), ConvertError> {
        self.file.finish_tables()?;
        let packer = self.packer.as_ref();
        let packer = packer.map(|packer| packer.lock().unwrap_or_else(PoisonError::into_inner));
        let count = |cluster| packer.as_ref().map_or(1, |packer| packer.refcount(cluster));
        let table = refcounts::write(&self.file, &self.options, count)?;
        let front = header::encode(&self.options, table);
        self.file.publish(self.options.cluster_len.into(), COPIED, &front)
    }
}

/// Replaces what `storage` holds by a new empty QCOW2 image; durable when it returns.
///
/// The header comes last, so an interrupted creation leaves no image.
///
/// # Errors
/// Options that break a rule are found before anything is written; then the storage's errors.
pub fn create_qcow2(
    storage: Arc<dyn Storage>,
    options: &Qcow2CreateOptions,
) -> Result<(), ConvertError> {
    let file = TargetFile { storage, durable: true };
    Qcow2Sink::create(file, options.clone(), false)?.finish()
}
