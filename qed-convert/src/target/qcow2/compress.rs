//! The codecs of compressed clusters.

use std::io;
use std::ops::Range;

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::convert::ConvertError;
use crate::target::qcow2::options::Qcow2Compression;
use crate::target::{Chunk, Content};

/// log2 of the deflate window that QCOW2 readers have.
const DEFLATE_WINDOW_BITS: u8 = 12;

pub(crate) struct Compressor {
    codec: Codec,
    cluster_len: usize,
}

enum Codec {
    Zlib(Compress),
    Zstd(zstd::bulk::Compressor<'static>),
}

/// The streams of a chunk, one after the other.
pub(crate) struct Compressed {
    pub(crate) bytes: Vec<u8>,
    /// The stream of each cluster; none for a cluster without data or one that would not get
    /// smaller.
    pub(crate) clusters: Vec<Option<Range<usize>>>,
}

impl Compressor {
    pub(crate) fn new(kind: Qcow2Compression, cluster_len: u32) -> Result<Self, ConvertError> {
        let codec = match kind {
            Qcow2Compression::Zlib => Codec::Zlib(Compress::new_with_window_bits(
                Compression::default(),
                false,
                DEFLATE_WINDOW_BITS,
            )),
            Qcow2Compression::Zstd => Codec::Zstd(
                zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL)
                    .map_err(|source| ConvertError::Compress { at: 0, source })?,
            ),
        };
        Ok(Self { codec, cluster_len: usize::try_from(cluster_len).expect("at most 2 MiB") })
    }

    /// Compresses every cluster of `chunk` that holds data.
    pub(crate) fn compress_all(
        &mut self,
        chunk: &Chunk<'_>,
        contents: &[Content],
    ) -> Result<Compressed, ConvertError> {
        let mut all = Compressed { bytes: Vec::new(), clusters: Vec::new() };
        let mut at = chunk.at;
        for (cluster, content) in chunk.bytes.chunks(self.cluster_len).zip(contents) {
            let stream = if *content == Content::Data {
                let stream = self.compress(cluster, &mut all.bytes);
                stream.map_err(|source| ConvertError::Compress { at, source })?
            } else {
                None
            };
            all.clusters.push(stream);
            at += cluster.len() as u64;
        }
        Ok(all)
    }

    /// Appends the stream of one cluster to `out`, which is as before if it would not get smaller.
    fn compress(&mut self, cluster: &[u8], out: &mut Vec<u8>) -> io::Result<Option<Range<usize>>> {
        let mut padded;
        let mut cluster = cluster;
        if cluster.len() < self.cluster_len {
            // The last cluster of the virtual disk: readers expect a whole one.
            padded = cluster.to_vec();
            padded.resize(self.cluster_len, 0);
            cluster = &padded;
        }
        let start = out.len();
        let len = match &mut self.codec {
            Codec::Zlib(codec) => deflate(codec, cluster, out)?,
            Codec::Zstd(codec) => {
                let room = zstd::zstd_safe::compress_bound(cluster.len());
                out.resize(start + room, 0);
                codec.compress_to_buffer(cluster, &mut out[start..])?
            }
        };
        let len = Some(len).filter(|len| *len < self.cluster_len);
        out.truncate(start + len.unwrap_or(0));
        Ok(len.map(|len| start..start + len))
    }
}

/// Appends the raw deflate stream of `cluster` to `out`; its length.
fn deflate(codec: &mut Compress, cluster: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
    let start = out.len();
    // Room for any stream, also one that grows: zlib-rs 0.6.8 cannot reset a stream that it left
    // unfinished (bytes of the old one stay queued).
    let len = cluster.len();
    out.resize(start + len + len / 8 + len / 64 + 64, 0);
    codec.reset();
    let status = codec
        .compress(cluster, &mut out[start..], FlushCompress::Finish)
        .map_err(io::Error::other)?;
    if status != Status::StreamEnd {
        return Err(io::Error::other("the deflate stream is longer than it can be"));
    }
    Ok(usize::try_from(codec.total_out()).expect("bounded by the buffer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    #[test]
    fn clusters_that_do_not_get_smaller_leave_no_trace_in_the_next() {
        for kind in [Qcow2Compression::Zlib, Qcow2Compression::Zstd] {
            for cluster_len in [512, 4096, 65536, 2 << 20] {
                let len = usize::try_from(cluster_len).unwrap();
                let mut compressor = Compressor::new(kind, cluster_len).unwrap();
                let mut out = Vec::new();
                for _ in 0..10 {
                    assert_eq!(compressor.compress(&noise(len), &mut out).unwrap(), None);
                }
                assert!(out.is_empty());
                let stream = compressor.compress(&vec![7; len], &mut out).unwrap().unwrap();
                let mut fresh = Vec::new();
                let mut compressor = Compressor::new(kind, cluster_len).unwrap();
                compressor.compress(&vec![7; len], &mut fresh).unwrap();
                assert_eq!((stream.start, &out), (0, &fresh), "{kind:?} {cluster_len}");
            }
        }
    }
}
