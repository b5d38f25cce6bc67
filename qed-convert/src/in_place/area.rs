//! What a conversion writes into cluster 0 beside the first sector: the undo record, and the format
//! of the backing file where the header has no bit for it; and taking it away with the tail.

use qed_core::Identity;
use qed_io::Storage;
use qed_spec::{
    Anchor, BackingName, Generation, HEADER_LEN_BYTES, Header, RawAnchor, RawHeader, RawSuperblock,
    RawUndoRecord, StoredBackingFormat, SuperblockBuilder, SuperblockCopy, UndoRecord,
};

use crate::in_place::error::{InPlaceError, Refusal, Step};
use crate::in_place::step::{self, SECTOR, Sector, flush, set_len, write};
use crate::qcow2::Qcow2Header;

/// First byte that is written.
pub(super) const RECORD_AREA_START: u64 = 2048;
/// Byte after the last superblock copy.
const SUPERBLOCKS_END: u64 = 16 << 10;
/// Byte after the undo record.
const RECORD_END: u64 = 4096;

/// What lies where a conversion writes, where there is no intact record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Sectors of a record that a crash tore: then nothing was appended, or it is gone again.
    Torn,
    /// Something else, from this byte of the file on.
    Unknown {
        at: u64,
    },
}

/// Whether a sector is one that a conversion writes: each has a mark of its own, or holds what the
/// first sector of the file has where QED leaves it alone.
fn is_torn_part(at: u64, sector: &[u8], first: &Sector) -> bool {
    const ANCHOR: u64 = Anchor::OFFSET.get();
    const SUPERBLOCK: u64 = SuperblockCopy::A.offset().get();
    const RECORD: u64 = UndoRecord::OFFSET.get();
    /// Bytes of the record before the sectors that it keeps.
    const HEAD_LEN: usize = 24;
    const OLD_AND_NEW: u64 = RECORD + SECTOR as u64;
    const REST: u64 = OLD_AND_NEW + SECTOR as u64;
    match at {
        ANCHOR => sector.starts_with(&RawAnchor::MAGIC),
        SUPERBLOCK => sector.starts_with(&RawSuperblock::MAGIC),
        RECORD => sector.starts_with(&RawUndoRecord::MAGIC),
        OLD_AND_NEW => {
            let (old, new) = sector.split_at(HEAD_LEN);
            let (header, rest) = new.split_at(HEADER_LEN_BYTES);
            let kept = &first[HEADER_LEN_BYTES..SECTOR - HEAD_LEN];
            old == &first[SECTOR - HEAD_LEN..]
                && header.starts_with(&RawHeader::MAGIC)
                && rest == kept
        }
        REST => {
            let (new, padding) = sector.split_at(HEAD_LEN);
            new == &first[SECTOR - HEAD_LEN..] && padding.iter().all(|byte| *byte == 0)
        }
        _ => false,
    }
}

/// The bytes from [`RECORD_AREA_START`] on.
#[derive(Debug)]
pub(super) struct Area(Vec<u8>);

impl Area {
    /// Byte after the last that header extensions and names may use.
    pub(super) const NAMES_END: u64 = RECORD_AREA_START;

    /// What lies where a conversion writes, in an image with clusters of `cluster_size` bytes.
    pub(super) fn found(storage: &dyn Storage, cluster_size: u64) -> Result<Found, InPlaceError> {
        let mut bytes = vec![0; usize::try_from(len(cluster_size)).expect("at most 14 KiB")];
        let start = RECORD_AREA_START;
        storage.read_at(&mut bytes, start).map_err(InPlaceError::io(Step::Read, start))?;
        let first = step::read(storage, 0)?;
        let mut found = Found::Nothing;
        for (at, sector) in (start..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
            match sector.iter().position(|byte| *byte != 0) {
                None => {}
                Some(_) if is_torn_part(at, sector, &first) => found = Found::Torn,
                Some(within) => return Ok(Found::Unknown { at: at + within as u64 }),
            }
        }
        Ok(found)
    }

    /// Of the image with the header `qed`, which was `qcow2`.
    pub(super) fn new(
        qcow2: &Qcow2Header,
        qed: &Header,
        identity: Identity,
        record: &UndoRecord,
    ) -> Result<Self, InPlaceError> {
        let mut bytes = vec![0; usize::try_from(len(qcow2.cluster_size())).expect("14 KiB")];
        let mut put = |at: u64, part: &[u8]| {
            let at = usize::try_from(at - RECORD_AREA_START).expect("behind the start");
            bytes[at..at + part.len()].copy_from_slice(part);
        };
        put(UndoRecord::OFFSET.get(), &record.encode());
        if let Some((format, name)) = stored_format(qcow2)? {
            let stored = StoredBackingFormat::new(&format, name).map_err(Refusal::from)?;
            if SuperblockCopy::both_fit(qed) {
                let mut builder = SuperblockBuilder::new(identity.uuid, identity.epoch);
                builder.set_backing_format(&stored).expect("a section of 36 bytes fits");
                put(SuperblockCopy::A.offset().get(), &builder.encode(Generation::FIRST));
            } else {
                let anchor = Anchor { backing_format: Some(stored), superblocks: None };
                put(Anchor::OFFSET.get(), &anchor.encode());
            }
        }
        Ok(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Bytes that are written in an image with such clusters.
pub(super) fn len(cluster_size: u64) -> u64 {
    let end = if cluster_size >= SUPERBLOCKS_END { SUPERBLOCKS_END } else { RECORD_END };
    end - RECORD_AREA_START
}

/// Cuts the file to `end` and zeroes the `area` bytes that the conversion wrote in cluster 0.
///
/// The record goes last: as long as it is there, the next call knows what the tail is.
// spec: QED-CONV-02
pub(super) fn clean(storage: &dyn Storage, end: u64, area: u64) -> Result<(), InPlaceError> {
    // Step "cut": a tail would show up as data where the file is allocated in advance.
    if step::len(storage)? > end {
        set_len(storage, Step::Cut, end)?;
        flush(storage, Step::Cut)?;
    }
    // Step "erase".
    let zeros = vec![0; usize::try_from(area).expect("at most 14 KiB")];
    write(storage, Step::Erase, &zeros, RECORD_AREA_START)?;
    flush(storage, Step::Erase)
}

/// The format of the backing file and its name, where there is one that is not raw.
fn stored_format(qcow2: &Qcow2Header) -> Result<Option<(String, BackingName<'_>)>, InPlaceError> {
    let (Some(name), Some(format)) = (qcow2.backing_name(), qcow2.backing_format()) else {
        return Ok(None);
    };
    // What is no text is refused with its rule by whoever stores it.
    Ok(match format {
        b"raw" => None,
        format => Some((String::from_utf8_lossy(format).into_owned(), name)),
    })
}
