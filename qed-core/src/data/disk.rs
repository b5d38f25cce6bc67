//! The backing file seam: what lies under an overlay, and the gate that decides whether it opens.
//!
//! Names in an image are data that a guest may have written. Nothing here opens a file: the caller's
//! [`BackingGate`] does, or refuses.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use qed_io::{PieceMut, Storage, fill_pieces, pieces_mut_len, with_part_mut};
use qed_spec::{BackingName, ErrorKind};
use thiserror::Error;

use crate::backing::BackingFormat;

/// A read-only virtual disk under an overlay: QED, raw or any other format the caller brings.
pub trait VirtualDisk: Debug + Send + Sync {
    /// Bytes of the virtual disk. Reads past it are the overlay's business: it reads zeros there.
    fn len(&self) -> u64;

    /// Whether the virtual disk has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from byte `offset` of the virtual disk; the range ends at or before `len()`.
    ///
    /// # Errors
    /// What kept the bytes from being read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError>;

    /// As [`VirtualDisk::read_at`], into several pieces one after the other; without a copy where the disk
    /// lies in a file as it is.
    ///
    /// # Errors
    /// As [`VirtualDisk::read_at`].
    fn read_vectored_at(
        &self,
        pieces: &mut [PieceMut<'_>],
        offset: u64,
    ) -> Result<(), BackingError> {
        fill_pieces(pieces, offset, |buf, at| self.read_at(buf, at))
    }

    /// The longest run from `offset` with one mapping, at most `max_len` bytes and never empty
    /// while `offset < len()` and `max_len > 0`.
    ///
    /// # Errors
    /// What kept the tables from being read.
    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError>;

    /// Where the data of the extent at `offset`, which is of this depth, lies: its bytes from
    /// `host_offset` on are the disk's, and what cannot be read there is asked of
    /// [`VirtualDisk::read_at`]. For a caller that reads many of them at a time; `None` where only that call
    /// reads.
    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        let _ = (offset, depth);
        None
    }
}

/// Fills `buf` with what shows where an overlay has nothing: the bytes of its backing file from
/// `offset` on, zeros past the end of that or where there is none.
///
/// # Errors
/// Of the backing file; `buf` is unspecified then.
pub fn read_backing(
    backing: Option<&dyn VirtualDisk>,
    buf: &mut [u8],
    offset: u64,
) -> Result<(), BackingError> {
    read_backing_pieces(backing, &mut [PieceMut::Own(buf)], offset)
}

/// As [`read_backing`], into several pieces one after the other.
// spec: QED-BACK-04
pub(crate) fn read_backing_pieces(
    backing: Option<&dyn VirtualDisk>,
    pieces: &mut [PieceMut<'_>],
    offset: u64,
) -> Result<(), BackingError> {
    let len = pieces_mut_len(pieces);
    let stored = backing.map_or(0, |backing| backing.len().saturating_sub(offset)).min(len);
    with_part_mut(pieces, stored, len - stored, |past_end| {
        past_end.iter_mut().for_each(PieceMut::fill_zeroes);
    });
    match backing {
        Some(backing) if stored > 0 => {
            with_part_mut(pieces, 0, stored, |part| backing.read_vectored_at(part, offset))
        }
        _ => Ok(()),
    }
}

/// A run of bytes of a virtual disk with one mapping, seen through its whole backing chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestExtent {
    /// Bytes.
    pub len: u64,
    /// Image of the chain that decides about the run: 0 is the image asked, 1 its backing file.
    pub depth: u32,
    /// What the run holds.
    pub kind: GuestExtentKind,
}

/// What a [`GuestExtent`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestExtentKind {
    /// Bytes stored at this offset of that image's file.
    Data {
        /// First byte in the file.
        host_offset: u64,
    },
    /// Bytes that belong at this offset of that image's file, which has a hole there: zeros. Only
    /// [`crate::Extents`] looks.
    Hole {
        /// First byte in the file.
        host_offset: u64,
    },
    /// Bytes stored compressed: no plain offset to read them from.
    Compressed,
    /// Zeros by an entry that says so.
    Zero,
    /// Zeros because no image has anything here: `depth` is the last that reaches this far.
    Unallocated,
}

impl GuestExtent {
    /// What is left of it after `passed` bytes, fewer than it has.
    #[must_use]
    pub fn rest(self, passed: u64) -> Self {
        let kind = match self.kind {
            GuestExtentKind::Data { host_offset } => {
                GuestExtentKind::Data { host_offset: host_offset + passed }
            }
            GuestExtentKind::Hole { host_offset } => {
                GuestExtentKind::Hole { host_offset: host_offset + passed }
            }
            kind => kind,
        };
        Self { len: self.len - passed, kind, ..self }
    }
}

impl GuestExtentKind {
    /// Whether the bytes have to be read to be known; all others are zeros.
    #[must_use]
    pub const fn is_stored(self) -> bool {
        matches!(self, Self::Data { .. } | Self::Compressed)
    }
}

/// Why a virtual disk could not be read: the place, and the error of whatever holds it.
#[derive(Debug, Error)]
#[error("guest offset {offset:#x}")]
pub struct BackingError {
    /// Byte of the virtual disk.
    pub offset: u64,
    pub(crate) kind: ErrorKind,
    /// The error of the storage or of the format.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl BackingError {
    /// What of that class kept byte `offset` of the virtual disk from being read.
    #[must_use]
    pub fn new(
        offset: u64,
        kind: ErrorKind,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { offset, kind, source: source.into() }
    }
}

/// What an image asks of the gate.
#[derive(Debug, Clone)]
pub struct BackingRequest<'a> {
    /// The name as the image has it, relative names being relative to the image's folder.
    pub name: BackingName<'a>,
    /// The format as the image has it.
    pub format: BackingFormat,
}

/// Opens the backing files that images name, or refuses to.
pub trait BackingGate {
    /// Opens what `request` names; none to open the image as if it had no backing file, which is
    /// for tools that look at metadata only.
    ///
    /// # Errors
    /// Why it does not.
    fn open_backing(
        &self,
        request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn VirtualDisk>>, GateError>;
}

/// Why a gate did not open a backing file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GateError {
    /// The caller opens no backing files.
    #[error("backing files are not opened here")]
    Refused,
    /// The gate's own reason.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

/// A gate for a caller that has opened the backing file already, whatever its name; with `None`, an image opens as
/// if it had no backing file, which is for looking at metadata only.
#[derive(Debug, Clone, Default)]
pub struct GivenBacking(pub Option<Arc<dyn VirtualDisk>>);

impl BackingGate for GivenBacking {
    fn open_backing(
        &self,
        _request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn VirtualDisk>>, GateError> {
        Ok(self.0.clone())
    }
}

/// The default gate: an image with a backing file does not open.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefuseBacking;

impl BackingGate for RefuseBacking {
    fn open_backing(
        &self,
        _request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn VirtualDisk>>, GateError> {
        Err(GateError::Refused)
    }
}
