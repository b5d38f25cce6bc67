//! The QED disk image format: bytes to meaning and back.
//!
//! Everything here is computed from bytes the caller hands in: no I/O, no allocation, no `unsafe`,
//! and no `std` with the default feature off. What a function accepts is a clause of the
//! specification, `docs/format.md`; clause ids stand in `spec:` comments beside the code.
//!
//! - [`Header`] is the validated header, [`HeaderFields`] what a writer chooses.
//! - [`Geometry`] does every conversion between offsets, clusters and table slots.
//! - [`L1Entry`] and [`L2Entry`] are what a table slot says.
//! - [`SuperblockChoice`] reads the two copies of the extension superblock, [`SuperblockBuilder`]
//!   writes the next one, [`Anchor`] finds them in an image that was converted in place.
//! - [`UndoRecord`] is what undoes a conversion in place.
//! - [`JournalRing`], [`JournalBlock`] and [`JournalRecord`] are the metadata journal.
//!
//! # Example
//!
//! The first 64 bytes of an image, and where its tables map a guest offset:
//!
//! ```
//! use qed_spec::{Features, GuestOffset, Header, HeaderError};
//!
//! let mut bytes = [0; 64];
//! bytes[0..4].copy_from_slice(b"QED\0");
//! bytes[4..8].copy_from_slice(&65536_u32.to_le_bytes()); // cluster size in bytes
//! bytes[8..12].copy_from_slice(&4_u32.to_le_bytes()); // table size in clusters
//! bytes[12..16].copy_from_slice(&1_u32.to_le_bytes()); // header size in clusters
//! bytes[40..48].copy_from_slice(&65536_u64.to_le_bytes()); // L1 table offset
//! bytes[48..56].copy_from_slice(&(10_u64 << 30).to_le_bytes()); // image size
//!
//! let file_len = 5 * 65536; // the header's cluster and the four of the L1 table
//! let header = Header::parse(&bytes, file_len, Features::CLASSIC)?;
//! assert_eq!(header.image_size(), 10 << 30);
//!
//! let slots = header.geometry().lookup(GuestOffset::new(3 << 30)).expect("inside the image");
//! assert_eq!((slots.l1.get(), slots.l2.get(), slots.within_cluster), (1, 16384, 0));
//!
//! bytes[16] = 8; // an incompatible feature that nobody has defined
//! let refused = Header::parse(&bytes, file_len, Features::CLASSIC);
//! assert_eq!(refused, Err(HeaderError::UnsupportedFeature { bit: 3, name: None }));
//! # Ok::<(), HeaderError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

#[cfg(feature = "std")]
extern crate std;

mod addr;
mod backing_name;
mod conversion;
mod crc;
mod entry;
mod error;
mod features;
mod geometry;
mod header;
mod journal;
mod kind;
mod len;
mod parse;
mod pending;
mod raw;
mod superblock;

pub use addr::{
    ClusterCount, GuestCluster, GuestOffset, HostCluster, HostOffset, L1Index, L2Index,
};
pub use backing_name::{BackingName, MAX_BACKING_NAME_LEN_BYTES};
pub use conversion::{RawUndoRecord, UNDO_RECORD_LEN_BYTES, UndoRecord, UndoRecordError};
pub use entry::{L1Entry, L2Entry};
pub use error::{BackingNameError, EntryError, HeaderError};
pub use features::{AutoclearFeatures, CompatFeatures, Features};
pub use geometry::{Geometry, Lookup};
pub use header::{HEADER_SECTOR_LEN_BYTES, Header, HeaderFields};
pub use journal::JournalSequence;
pub use journal::block::{JournalBlock, JournalBlockHead, JournalSeed};
pub use journal::error::{JournalBlockError, JournalRecordError, JournalRingError};
pub use journal::raw::{
    JOURNAL_BLOCK_LEN_BYTES, JOURNAL_RECORDS_PER_BLOCK, RawJournalBlock, RawJournalRecord,
    RawJournalRing,
};
pub use journal::record::{JournalRecord, SlotRun};
pub use journal::ring::JournalRing;
pub use kind::ErrorKind;
pub use pending::{
    PENDING_BINDING_WORDS, PENDING_HEADER_LEN_BYTES, PENDING_SLOT_WORDS, PendingBinding,
    PendingRecord, PendingWord, entry_in_row,
};
pub use raw::{
    ANCHOR_LEN_BYTES, HEADER_LEN_BYTES, RawAnchor, RawDirtyBitmap, RawHeader, RawOwner,
    RawPhysicalSize, RawSectionHead, RawSuperblock, SECTIONS_LEN_BYTES, SUPERBLOCK_LEN_BYTES,
    TableEntry,
};
pub use superblock::anchor::Anchor;
pub use superblock::backing_format::{MAX_BACKING_FORMAT_LEN_BYTES, StoredBackingFormat};
pub use superblock::builder::SuperblockBuilder;
pub use superblock::copies::{SuperblockChoice, SuperblockCopy};
pub use superblock::dirty_bitmap::DirtyBitmap;
pub use superblock::error::{
    AnchorError, BackingFormatError, ChooseError, DirtyBitmapError, ImageOwnerError, ModeError,
    PhysicalSizeError, SuperblockError, SuperblockFull,
};
pub use superblock::mode::ConsistencyMode;
pub use superblock::owner::ImageOwner;
pub use superblock::physical_size::PhysicalSize;
pub use superblock::section::{Section, SectionType, Sections};
pub use superblock::{Epoch, Generation, ImageUuid, Superblock};
