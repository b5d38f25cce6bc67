//! The journal of an image that opens for writing: gone on with, or begun anew.

use std::sync::Arc;

use qed_journal::{Journal, JournalSetup};
use qed_spec::{AutoclearFeatures, JournalRing, JournalSequence, SectionType};

use crate::durability::log::Log;
use crate::error::OpenError;
use crate::head::Head;
use crate::head::sections::FoundJournal;

/// The journal of an image without commits; where another program wrote the image since, or the
/// numbers of its blocks run out, one that begins anew.
pub(crate) fn open(found: FoundJournal, head: &Head) -> Result<Log, OpenError> {
    let FoundJournal { mut setup, is_kept } = found;
    if !is_kept || setup.ring.is_running_out() {
        setup = begin_anew(setup, head)?;
    }
    let journal = Journal::open_clean(head.storage().clone(), &setup)?;
    Ok(Log::new(Arc::new(journal)))
}

/// An empty ring in the place of the old one, in an epoch of its own: no block that is there counts.
/// Durable when it returns.
// spec: QED-SB-12, QED-SB-17
fn begin_anew(setup: JournalSetup, head: &Head) -> Result<JournalSetup, OpenError> {
    let epoch = setup.epoch.after(setup.generation);
    let (offset, len_bytes) = (setup.ring.offset(), setup.ring.len_bytes());
    let ring = JournalRing::new(offset, len_bytes, JournalSequence::FIRST)?;
    let generation = head.change_superblock(|builder| {
        builder.set_epoch(epoch);
        builder.set_section(SectionType::JOURNAL, &ring.encode())
    })?;
    head.sync()?;
    head.update(|fields| fields.autoclear_features |= AutoclearFeatures::JOURNAL)?;
    head.sync()?;
    Ok(JournalSetup { ring, epoch, generation, ..setup })
}
