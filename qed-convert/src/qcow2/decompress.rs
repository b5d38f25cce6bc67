//! Decompression of one cluster: the output is bounded by the buffer, the memory by constants.
//!
//! Knows streams, not where they lie.

use std::io;
use std::sync::{Mutex, PoisonError};

use libdeflater::{DecompressionError, Decompressor};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::error::Qcow2StreamFault;
use crate::target::qcow2::Qcow2Compression;

/// Largest zstd window, as a power of two: what RFC 8878 asks decoders to support. QEMU's frames
/// have windows of at most a cluster; without a limit a frame of 20 bytes could ask for 128 MiB.
const MAX_ZSTD_WINDOW_BITS: u32 = 23;
/// Idle decompressors kept; more threads than this make their own each time.
const MAX_IDLE: usize = 64;

/// The decompressors of an image, one for each thread that is at it.
#[derive(Debug)]
pub(super) struct Decompressors {
    compression: Qcow2Compression,
    idle: Mutex<Vec<Worker>>,
}

/// A decompressor and the memory for its input.
#[derive(Debug)]
struct Worker {
    codec: Codec,
    input: Vec<u8>,
}

enum Codec {
    Zlib(Decompressor),
    Zstd(Decoder<'static>),
}

/// Why a cluster was not decompressed.
#[derive(Debug)]
pub(super) enum DecompressError {
    Stream(Qcow2StreamFault),
    Read(io::Error),
    Setup(io::Error),
}

impl Decompressors {
    pub(super) fn new(compression: Qcow2Compression) -> Self {
        Self { compression, idle: Mutex::default() }
    }

    /// Fills `output`, one cluster, from the stream that `read` puts into a buffer of `len` bytes.
    ///
    /// What follows the stream in the buffer is ignored: it belongs to other clusters.
    pub(super) fn run(
        &self,
        len: usize,
        output: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> Result<(), DecompressError> {
        let idle = self.idle().pop();
        let mut worker = match idle {
            Some(worker) => worker,
            None => Worker { codec: Codec::new(self.compression)?, input: Vec::new() },
        };
        worker.input.resize(len, 0);
        read(&mut worker.input).map_err(DecompressError::Read)?;
        let result = worker.codec.run(&worker.input, output);
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(worker);
        }
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Codec {
    fn new(compression: Qcow2Compression) -> Result<Self, DecompressError> {
        match compression {
            // QEMU's streams reach back 4 KiB at most; this one reads all of deflate's 32 KiB.
            Qcow2Compression::Zlib => Ok(Self::Zlib(Decompressor::new())),
            Qcow2Compression::Zstd => {
                zstd_decoder().map(Self::Zstd).map_err(DecompressError::Setup)
            }
        }
    }

    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), DecompressError> {
        match self {
            Self::Zlib(inflate) => inflate_cluster(inflate, input, output),
            Self::Zstd(decoder) => {
                decoder.reinit().map_err(DecompressError::Setup)?;
                decode_frames(decoder, input, output)
            }
        }
        .map_err(Into::into)
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Zlib(_) => "Zlib",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl From<Qcow2StreamFault> for DecompressError {
    fn from(fault: Qcow2StreamFault) -> Self {
        Self::Stream(fault)
    }
}

/// The whole stream must fit, while QEMU takes the first cluster of a longer one.
fn inflate_cluster(
    inflate: &mut Decompressor,
    input: &[u8],
    output: &mut [u8],
) -> Result<(), Qcow2StreamFault> {
    match inflate.deflate_decompress(input, output) {
        Ok(written) if written == output.len() => Ok(()),
        Ok(_) => Err(Qcow2StreamFault::TooShort),
        Err(DecompressionError::InsufficientSpace) => Err(Qcow2StreamFault::TooLong),
        Err(DecompressionError::BadData) => Err(Qcow2StreamFault::Invalid),
    }
}

/// Decodes frames until the cluster is full: QEMU may need several for one cluster.
fn decode_frames(
    decoder: &mut Decoder<'_>,
    input: &[u8],
    output: &mut [u8],
) -> Result<(), Qcow2StreamFault> {
    let mut input = InBuffer::around(input);
    let mut output = OutBuffer::around(output);
    let mut left_in_frame = 0;
    while output.pos() < output.capacity() {
        let before = (input.pos, output.pos());
        left_in_frame =
            decoder.run(&mut input, &mut output).map_err(|_| Qcow2StreamFault::Invalid)?;
        if (input.pos, output.pos()) == before {
            return Err(Qcow2StreamFault::TooShort);
        }
    }
    match left_in_frame {
        0 => Ok(()),
        _ => Err(Qcow2StreamFault::TooLong),
    }
}

fn zstd_decoder() -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(MAX_ZSTD_WINDOW_BITS))?;
    Ok(decoder)
}
