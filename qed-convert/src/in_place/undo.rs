//! The way back while nobody wrote to the image, the end of that time, and what a conversion that
//! was interrupted left.

use std::sync::Arc;

use qed_io::Storage;
use qed_layout::{FirstSector, SUPPORTED_WITHOUT_LOG};
use qed_spec::{AutoclearFeatures, Features, Header, UNDO_RECORD_LEN_BYTES, UndoRecord};

use super::area;
use super::area::{Area, Found};
use super::plan::Places;
use super::refcounts::end_of_counted;
use super::scan::scan;
use super::verify::compare;
use crate::chain::{ImageFormat, Recognised};
use crate::in_place::error::{InPlaceError, Refusal, Step};
use crate::in_place::step::{SECTOR, Sector, flush, len, read, write};
use crate::qcow2::Qcow2Header;

/// Bytes of cluster 0 that a QCOW2 header is parsed from; no cluster is larger.
const CLUSTER_MAX: u64 = 2 << 20;

/// Makes the image in `storage` the QCOW2 image that it was, byte for byte and in its own length;
/// or takes away what an interrupted conversion left of a QCOW2 image. The caller holds the image
/// lock for writing.
///
/// Durable when it returns; interrupted, it can be called again.
///
/// # Errors
/// [`Refusal`] for an image that was not converted, or written since; failed I/O.
// spec: QED-CONV-02
pub fn undo(storage: &Arc<dyn Storage>) -> Result<(), InPlaceError> {
    let storage = &**storage;
    let recognised = Recognised::of(storage).map_err(InPlaceError::io(Step::Read, 0))?;
    if recognised == Recognised::Readable(ImageFormat::Qcow2) {
        return finish_undo(storage);
    }
    let (qed, sector) = converted(storage)?;
    let record = record(storage)?.ok_or(Refusal::NothingToUndo)?;
    let autoclear = qed.fields().autoclear_features;
    if !autoclear.contains(AutoclearFeatures::CONVERSION_UNDO) {
        return Err(Refusal::NothingToUndo.into());
    }
    if record.new_sector != sector || record.old_len > len(storage)? {
        return Err(Refusal::Changed.into());
    }
    let header = old_header(storage, &record)?;
    // A conversion keeps disk and clusters, so its tables are no larger than those of QCOW2 allow.
    if header.cluster_size() != qed.geometry().cluster_size_bytes()
        || header.image_size() != qed.fields().image_size
    {
        return Err(Refusal::Changed.into());
    }
    let found = scan(storage, &header, record.old_len, qed.geometry())?;
    let places = Places::of(&qed, &found, record.old_len).ok_or(Refusal::Changed)?;
    // What lies behind the tables is nobody's that a conversion knows: it is not cut.
    if len(storage)? != places.end {
        return Err(Refusal::Changed.into());
    }
    match compare(storage, &header, record.old_len, &places, &sector) {
        Err(InPlaceError::Verify { .. } | InPlaceError::Tables { .. }) => {
            return Err(Refusal::Changed.into());
        }
        compared => compared?,
    }
    // Step "restore": one sector, and the file is QCOW2 again.
    write(storage, Step::Restore, &record.old_sector, 0)?;
    flush(storage, Step::Restore)?;
    area::clean(storage, record.old_len, area::len(header.cluster_size()))
}

/// Clears what allows to undo: the old tables are given up.
///
/// # Errors
/// [`Refusal`] for an image that was not converted; failed I/O.
// spec: QED-CONV-03
pub fn finalize(storage: &Arc<dyn Storage>) -> Result<(), InPlaceError> {
    let storage = &**storage;
    let (qed, sector) = converted(storage)?;
    let mut fields = *qed.fields();
    fields.autoclear_features.remove(AutoclearFeatures::CONVERSION_UNDO);
    fields.features.remove(Features::CONVERSION_HOLD);
    if fields == *qed.fields() {
        return Err(Refusal::NothingToFinalize.into());
    }
    let cleared = qed.with_fields(fields, len(storage)?)?;
    write(storage, Step::Finalize, &cleared.encode_sector(&sector), 0)?;
    flush(storage, Step::Finalize)
}

/// Where the QCOW2 image in `storage` really ends, if an interrupted conversion left something
/// behind it; `end` is where its tables end.
///
/// QEMU may have gone on from there: what it counts as used stays.
// spec: QED-CONV-02
pub(super) fn leftover(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
    end: u64,
) -> Result<Option<u64>, InPlaceError> {
    let Some(record) = record(storage)? else { return Ok(None) };
    // What QEMU put behind the old end for a snapshot is named by the snapshot's tables and counted in
    // refcounts that a crash left behind: neither was read here.
    if header.is_dirty() && header.snapshot_count() > 0 {
        return Err(Refusal::DirtySnapshots.into());
    }
    let counted = end_of_counted(storage, header, file_len)?;
    let (old_len, used) = (record.old_len.min(file_len), end.max(counted).min(file_len));
    // A last cluster that the file cuts off is used to its end, but is not the longer for that.
    let in_cluster = used <= old_len.next_multiple_of(header.cluster_size());
    if used <= old_len || (in_cluster && reads_as_zeros(storage, old_len, used)?) {
        return Ok(Some(old_len));
    }
    Ok(Some(used))
}

fn reads_as_zeros(storage: &dyn Storage, start: u64, end: u64) -> Result<bool, InPlaceError> {
    let mut bytes = vec![0; usize::try_from(end - start).expect("less than a cluster")];
    storage.read_at(&mut bytes, start).map_err(InPlaceError::io(Step::Read, start))?;
    Ok(crate::is_zero(&bytes))
}

/// A QCOW2 image with a record: the first sector is restored, or was never replaced.
fn finish_undo(storage: &dyn Storage) -> Result<(), InPlaceError> {
    let file_len = len(storage)?;
    let header = Qcow2Header::read(storage)?;
    let geometry = qed_spec::Geometry::new(1 << 16, 4).expect("the default shape is legal");
    let end = scan(storage, &header, file_len, geometry)?.end;
    let end = match leftover(storage, &header, file_len, end)? {
        Some(end) => end,
        // A record that was torn while it was written or erased: there is no tail.
        None if Area::found(storage, header.cluster_size())? == Found::Torn => file_len,
        None => return Err(Refusal::NothingToUndo.into()),
    };
    area::clean(storage, end, area::len(header.cluster_size()))
}

/// Header and first sector of a QED image.
fn converted(storage: &dyn Storage) -> Result<(Header, Sector), InPlaceError> {
    let sector = FirstSector::read(storage, len(storage)?)?;
    Ok((sector.header(SUPPORTED_WITHOUT_LOG)?, *sector.bytes()))
}

/// The record, if there is an intact one.
fn record(storage: &dyn Storage) -> Result<Option<UndoRecord>, InPlaceError> {
    let at = UndoRecord::OFFSET.get();
    if len(storage)? < at + UNDO_RECORD_LEN_BYTES as u64 {
        return Ok(None);
    }
    Ok(UndoRecord::parse(&read::<UNDO_RECORD_LEN_BYTES>(storage, at)?).ok())
}

/// The header that the QCOW2 image had.
fn old_header(storage: &dyn Storage, record: &UndoRecord) -> Result<Qcow2Header, InPlaceError> {
    let there = CLUSTER_MAX.min(record.old_len);
    let mut bytes = vec![0; usize::try_from(there).expect("2 MiB")];
    storage.read_at(&mut bytes, 0).map_err(InPlaceError::io(Step::Read, 0))?;
    bytes[..SECTOR].copy_from_slice(&record.old_sector);
    let header = Qcow2Header::parse(&bytes, record.old_len);
    Ok(header.map_err(crate::qcow2::Qcow2OpenError::from)?)
}
