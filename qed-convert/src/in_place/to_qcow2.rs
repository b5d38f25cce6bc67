//! QED to QCOW2 in place: tables of QCOW2 are appended, one write of sector 0 makes the file QCOW2,
//! and what only QED needed is wiped.
//!
//! Owns the plan and the order of the steps; `to_qcow2/sources.rs` reads the mapping,
//! `to_qcow2/tables.rs` writes the tables, `to_qcow2/verify.rs` reads both views. The caller
//! keeps others away from the file. Step names are those of docs/write-ordering.md.

mod name;
mod sources;
mod tables;
mod verify;

use std::cell::RefCell;
use std::sync::Arc;

use qed_core::{
    BackingFormat, BackingGate, BackingRequest, GateError, Image, LockPolicy, ReadContext,
    ReadOnlyImage, RecoveryPolicy, VirtualDisk, WriteContext, read_header,
};
use qed_io::Storage;
use qed_spec::{AutoclearFeatures, Header};

use crate::NewBacking;
use crate::qcow2::Qcow2CreateOptions;
use crate::target::qcow2::header::{Places, encode_sector};
use crate::target::qcow2::refcounts::max_file_len;

use crate::in_place::error::{InPlaceError, Refusal, Step, failed};
use crate::in_place::step::{self, SECTOR, Sector};
use name::NewName;
use sources::Found;
use tables::{Layout, write_tables};

/// Largest cluster of QCOW2; larger ones of QED are split.
const MAX_CLUSTER_LEN: u64 = 2 << 20;

/// How a QED image becomes a QCOW2 image.
#[derive(Debug, Clone)]
pub struct ToQcow2Options<'a> {
    /// Whether the image lock is taken.
    pub lock: LockPolicy,
    /// What happens first if the image was not closed.
    pub recovery: RecoveryPolicy<'a>,
    /// The format of the backing file, for an image that does not say it.
    pub backing_format: Option<String>,
}

/// What a conversion does, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToQcow2Plan {
    /// Bytes per cluster of the QCOW2 image.
    pub cluster_len: u32,
    /// Length of the file before, in bytes.
    pub old_len: u64,
    /// Length of the file afterwards, in bytes.
    pub new_len: u64,
    /// L2 tables that are written.
    pub l2_tables: u64,
}

/// Says what [`qed_to_qcow2`] would do, and changes nothing.
///
/// # Errors
/// What the conversion would be refused for, and failed reads.
pub fn plan_qed_to_qcow2(
    storage: &Arc<dyn Storage>,
    options: &ToQcow2Options<'_>,
) -> Result<ToQcow2Plan, InPlaceError> {
    let gate = NoteFormat::default();
    let image = ReadOnlyImage::open(storage.clone(), &ReadContext::new(&gate, options.lock))?;
    refuse_undoable(&image.header())?;
    Ok(Conversion::plan(&image, gate.format(), options)?.summary())
}

/// Turns the QED image in `storage` into a QCOW2 image, version 3, without copying data; durable
/// when it returns.
///
/// The image is opened for writing and closed first, with what recovery it needs. The file is a QED
/// image until sector 0 is written and a QCOW2 image from then on. What fails before leaves the QED
/// image with its old length.
///
/// # Errors
/// What keeps the image from being converted, and the storage's errors.
pub fn qed_to_qcow2(
    storage: &Arc<dyn Storage>,
    options: &ToQcow2Options<'_>,
) -> Result<ToQcow2Plan, InPlaceError> {
    let gate = NoteFormat::default();
    let context = WriteContext::new(&gate, options.lock, options.recovery);
    // Opening for writing gives up what undoing needs.
    refuse_undoable(&read_header(&**storage)?)?;
    // Step "close": the log is empty, no dirty bit is set, and the tables say everything.
    Image::open(storage.clone(), &context)?.close()?;
    let old_len = storage.len().map_err(failed(Step::Read))?;
    let closed = ReadOnlyImage::open(storage.clone(), &ReadContext::new(&gate, LockPolicy::None))?;
    let conversion = Conversion::plan(&closed, gate.format(), options)?;
    let prepared = conversion.append(storage).and_then(|sector| {
        verify::both_views_agree(storage, sector)?;
        Ok(sector)
    });
    let sector = prepared.inspect_err(|_| {
        // The error that is returned says more than a file that stays long.
        let _ = storage.set_len(old_len).and_then(|()| storage.flush());
    })?;
    step::commit(&**storage, &sector)?;
    conversion.wipe(&**storage)?;
    Ok(conversion.summary())
}

/// All that is known before anything is written.
struct Conversion {
    options: Qcow2CreateOptions,
    old_len: u64,
    found: Found,
    layout: Layout,
    name: Option<NewName>,
}

impl Conversion {
    fn plan(
        image: &ReadOnlyImage,
        stated: BackingFormat,
        options: &ToQcow2Options<'_>,
    ) -> Result<Self, InPlaceError> {
        let storage = &**image.storage();
        if !step::is_regular(storage) {
            return Err(Refusal::BlockDevice.into());
        }
        let old_cluster_len = image.geometry().cluster_size_bytes();
        let cluster_len = old_cluster_len.min(MAX_CLUSTER_LEN);
        let mut new = Qcow2CreateOptions::new(image.image_size());
        new.cluster_len = u32::try_from(cluster_len).expect("at most 2 MiB");
        new.backing = backing(image, stated, options)?;
        new.validate()?;
        let old_len = step::len(storage)?;
        let max = max_file_len(cluster_len, new.refcount_bits);
        if old_len > max {
            return Err(Refusal::TooLong { len: old_len, max }.into());
        }
        // A cluster that the end of the file cuts off is going to be there in full.
        let used = old_len.next_multiple_of(old_cluster_len);
        let found = Found::scan(image, cluster_len, used / cluster_len)?;
        let layout = Layout::new(&new, used, found.tables);
        if layout.end > max {
            return Err(Refusal::TooLong { len: layout.end, max }.into());
        }
        let name = new
            .backing
            .as_ref()
            .map(|backing| NewName::place(&image.header(), &backing.name, cluster_len));
        let name = name.transpose()?;
        Ok(Self { options: new, old_len, found, layout, name })
    }

    fn summary(&self) -> ToQcow2Plan {
        ToQcow2Plan {
            cluster_len: self.options.cluster_len,
            old_len: self.old_len,
            new_len: self.layout.end,
            l2_tables: self.found.tables,
        }
    }

    /// Step "append": tables and refcounts behind the end of the file, the name where the QED image
    /// has nothing. Gives the sector that will name them.
    fn append(&self, storage: &Arc<dyn Storage>) -> Result<Sector, InPlaceError> {
        step::set_len(&**storage, Step::Append, self.layout.end)?;
        write_tables(storage, &self.options, &self.layout, &self.found.clusters)?;
        if let Some(name) = &self.name {
            step::write(&**storage, Step::Append, &name.bytes, name.at)?;
        }
        let Layout { l1_at, refcounts, .. } = self.layout;
        let name_at = self.name.as_ref().map_or(0, |name| name.at);
        encode_sector(&self.options, &Places { name_at, l1_at, refcounts })
            .ok_or(Refusal::FormatTooLong.into())
    }

    /// Step "wipe": what no entry names reads as zeros, the superblocks and the tables of QED
    /// among it, so that nothing of it shows up when a later writer takes the space.
    fn wipe(&self, storage: &dyn Storage) -> Result<(), InPlaceError> {
        let cluster_len = u64::from(self.options.cluster_len);
        let kept = self.name.as_ref().map_or(cluster_len..cluster_len, NewName::range);
        for range in [SECTOR as u64..kept.start, kept.end..cluster_len] {
            step::wipe(storage, range, Step::Wipe)?;
        }
        let end = self.layout.first_table / cluster_len;
        for gap in self.found.clusters.gaps(end) {
            step::wipe(storage, gap.start * cluster_len..gap.end * cluster_len, Step::Wipe)?;
        }
        step::flush(storage, Step::Wipe)
    }
}

/// Refuses an image that can still become the QCOW2 image that it was.
fn refuse_undoable(header: &Header) -> Result<(), InPlaceError> {
    let autoclear = header.fields().autoclear_features;
    if autoclear.contains(AutoclearFeatures::CONVERSION_UNDO) {
        return Err(Refusal::CanBeUndone.into());
    }
    Ok(())
}

/// The backing file as the new header has it: its format is always said.
fn backing(
    image: &ReadOnlyImage,
    stated: BackingFormat,
    options: &ToQcow2Options<'_>,
) -> Result<Option<NewBacking>, InPlaceError> {
    let Some(name) = image.backing_name() else { return Ok(None) };
    let format = match stated {
        BackingFormat::Raw => Some("raw".to_owned()),
        BackingFormat::Named(format) => Some(format),
        BackingFormat::Unstated => options.backing_format.clone(),
    };
    let Some(format) = format else { return Err(Refusal::BackingFormatUnknown.into()) };
    Ok(Some(NewBacking { name, format: Some(format), len: 0 }))
}

/// Opens no backing file, and keeps what the image says of its format.
#[derive(Default)]
struct NoteFormat(RefCell<Option<BackingFormat>>);

impl NoteFormat {
    fn format(&self) -> BackingFormat {
        self.0.borrow().clone().unwrap_or(BackingFormat::Unstated)
    }
}

impl BackingGate for NoteFormat {
    fn open_backing(
        &self,
        request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn VirtualDisk>>, GateError> {
        self.0.replace(Some(request.format));
        Ok(None)
    }
}
