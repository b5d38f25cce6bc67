//! Places for compressed clusters: streams one after the other at byte offsets, sharing clusters.

use crate::convert::ConvertError;
use crate::target::cluster_map::ClusterMap;

/// Entry bit of a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// Compressed lengths are recorded in sectors.
const SECTOR: u64 = 512;

/// Where the next stream goes, and how many streams touch each cluster.
#[derive(Debug)]
pub(crate) struct Packer {
    cluster_len: u64,
    /// The next free byte; a whole number of clusters when none is open.
    at: u64,
    /// Streams per host cluster, 0 for plain clusters; two bytes per cluster of the file.
    counts: Vec<u16>,
    /// Most streams that a refcount can count.
    max_count: u16,
}

/// Bytes below which offsets of compressed clusters have to lie.
pub(crate) fn max_host_len(cluster_len: u64) -> u64 {
    1 << offset_bits(cluster_len)
}

/// Bits of the host offset in an entry; the length in sectors is above them.
fn offset_bits(cluster_len: u64) -> u32 {
    62 - (cluster_len.trailing_zeros() - 8)
}

impl Packer {
    pub(crate) fn new(cluster_len: u64, refcount_bits: u32) -> Self {
        let max_count = if refcount_bits < 16 { (1 << refcount_bits) - 1 } else { u16::MAX };
        Self { cluster_len, at: 0, counts: Vec::new(), max_count }
    }

    /// The host offset for a stream of `len` bytes, less than a cluster.
    pub(crate) fn place(&mut self, map: &mut ClusterMap, len: u64) -> Result<u64, ConvertError> {
        let open_len = self.at % self.cluster_len;
        let cluster_end = self.at - open_len + self.cluster_len;
        let full = open_len == 0 || self.refcount_of(self.at) >= self.max_count;
        if full {
            self.at = map.allocate(1)?;
        } else if self.at + len > cluster_end {
            let next = map.allocate(1)?;
            // Only a neighbour can take the rest of the stream.
            if next != cluster_end {
                self.at = next;
            }
        }
        let host = self.at;
        self.at += len;
        self.count(host);
        if (self.at - 1) / self.cluster_len != host / self.cluster_len {
            self.count(self.at - 1);
        }
        Ok(host)
    }

    /// The table entry of a stream.
    pub(crate) fn entry(&self, host: u64, len: u64) -> u64 {
        let further_sectors = (host + len - 1) / SECTOR - host / SECTOR;
        COMPRESSED | further_sectors << offset_bits(self.cluster_len) | host
    }

    /// The refcount of a host cluster in use.
    pub(crate) fn refcount(&self, cluster: u64) -> u64 {
        let streams = usize::try_from(cluster).ok().and_then(|cluster| self.counts.get(cluster));
        u64::from(streams.copied().unwrap_or(0)).max(1)
    }

    fn refcount_of(&self, host: u64) -> u16 {
        let cluster = usize::try_from(host / self.cluster_len).ok();
        cluster.and_then(|cluster| self.counts.get(cluster).copied()).unwrap_or(0)
    }

    fn count(&mut self, host: u64) {
        let cluster = usize::try_from(host / self.cluster_len).expect("clusters of a real file");
        if self.counts.len() <= cluster {
            self.counts.resize(cluster + 1, 0);
        }
        self.counts[cluster] += 1;
    }
}
