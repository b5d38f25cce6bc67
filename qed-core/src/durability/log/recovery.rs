//! What a crash left in the journal of an image: read, judged, and written home.

use std::sync::Arc;

use qed_io::Storage;
use qed_journal::Recovery;
use qed_spec::Header;

use crate::durability::log::judge::Judge;
use crate::durability::log::owner::HeadOwner;
use crate::error::{ImageError, OpenError};
use crate::head::Head;
use crate::head::mode::{FoundHead, Mode, is_active};
use crate::head::physical_size::{OnDevice, RecordedEnd};
use crate::head::sections::FoundJournal;
use crate::head::sector::storage_len;

/// What a replay of the journal writes home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalReplay {
    /// Commits that were not in the tables.
    pub commits: u64,
    /// Blocks of the journal that held them.
    pub blocks: u64,
}

impl JournalReplay {
    pub(super) fn of(recovery: &Recovery) -> Self {
        Self { commits: recovery.commits(), blocks: recovery.blocks() }
    }
}

/// Writes home what a crash left in the journal of the image in `storage`, and clears
/// JOURNAL_ACTIVE; none, and nothing is written, where there is nothing to do.
///
/// The caller holds the image lock. Durable when it returns; a crash meanwhile leaves an image
/// that can be replayed again. Opening an image for writing does this by itself.
///
/// # Errors
/// A header or superblock that forbids writing, a journal with a record that must not be followed
/// or without one that was durable (nothing is written then), or failed I/O.
// spec: QED-JRN-22, QED-JRN-23, QED-JRN-24
pub fn replay_journal(storage: &Arc<dyn Storage>) -> Result<Option<JournalReplay>, OpenError> {
    let head = FoundHead::read(&**storage)?;
    let (header, recorded) = (*head.header(), head.physical_size);
    let device = OnDevice::of(&**storage, storage_len(&**storage)?, recorded);
    let (head, mode) = head.into_head(storage.clone(), None);
    let Mode::Journal(found) = mode else { return Ok(None) };
    if !is_active(&header) {
        return Ok(None);
    }
    let recovery = read(storage, &header, &found)?;
    let done = JournalReplay::of(&recovery);
    let epoch = found.setup.epoch.after(found.setup.generation);
    let owner = HeadOwner(&head);
    let replayed = recovery.replay()?;
    if let Some((device, size)) = device.zip(replayed.physical_size()) {
        cover(device, size.get().saturating_mul(header.geometry().cluster_size_bytes()), &head)?;
    }
    replayed.restart(&owner, epoch)?.quiesce(&owner)?;
    head.sync()?;
    Ok(Some(done))
}

/// What is recorded of the end of an image on a device says no less than the last commit, durably: the
/// tail is about to pass that.
// spec: QED-DEV-01
fn cover(device: OnDevice, end: u64, head: &Head) -> Result<(), ImageError> {
    match device.believed.filter(|recorded| recorded.physical_size() < end) {
        Some(recorded) => {
            let known = recorded.device_size().max(end);
            RecordedEnd::new(device).cover(head, (end, known))?;
            head.sync()
        }
        None => Ok(()),
    }
}

/// Reads and judges all that the journal holds.
// spec: QED-JRN-08, QED-JRN-14
pub(super) fn read(
    storage: &Arc<dyn Storage>,
    header: &Header,
    found: &FoundJournal,
) -> Result<Recovery, OpenError> {
    let mut judge = Judge::new(storage.clone(), header)?;
    let recovery = Recovery::read(storage.clone(), found.setup, |claim| {
        judge.allows(claim).map_err(std::io::Error::other)
    })?;
    // Tables of before the log may be in the file, and some of the log; at its end all fit.
    if recovery.physical_size().is_some_and(|size| !judge.all_fit(size)) {
        return Err(OpenError::JournalCutsTables);
    }
    Ok(recovery)
}
