//! The pending log of an image that opens for writing: one that a dead process left is judged and
//! replayed, or a new one is made.
//!
//! Step names are those of docs/write-ordering.md.

use std::sync::Arc;

use qed_io::{Growth, Storage};
use qed_pending::{LogPlace, MIN_SLOTS, PendingLog};
use qed_spec::{
    AutoclearFeatures, HostOffset, ImageOwner, PendingBinding, PendingRecord, PendingWord,
};

use crate::error::{ImageError, IoAction, OpenError, PendingLogError};
use crate::head::mode::FoundHead;
use crate::head::sector::storage_len;
use crate::image::Image;
use crate::ownership::{Keeps, Ownership, PendingLost};

/// What is known of the last owner of an image, before anything is written to it.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// A log that belongs to the image as it stands, with what it holds.
    log: Option<(Arc<PendingLog>, Vec<PendingRecord>)>,
    /// Bytes that the file has at the most after a recovery, which makes a cluster whole that the end cuts off.
    most_after_recovery: u64,
    /// Changes may be lost.
    is_lost: bool,
}

impl Inheritance {
    /// Looks for the log of an image, and for who had it. The image is locked, so that whoever had it on
    /// this host has ended, with all of its I/O.
    // spec: QED-HAND-03, QED-PEND-06, QED-PEND-07, QED-PEND-12
    pub(super) fn find(
        storage: &dyn Storage,
        ownership: Option<&Ownership<'_>>,
    ) -> Result<Self, OpenError> {
        let Some(ownership) = ownership else { return Ok(Self::default()) };
        let head = FoundHead::read(storage)?;
        let is_owned = head.is_owned();
        check_reach(storage, &head, ownership)?;
        let place = ownership.log;
        let found = place.map(LogPlace::find).transpose().map_err(OpenError::LogPlace)?.flatten();
        let is_of_this_boot = match head.owner {
            // Who does not know its boot cannot tell that it is another one.
            Some(owner) => [*owner.boot_id(), [0; 16]].contains(&ownership.boot_id),
            // Without a superblock nothing says which boot it was: only a log that is there does.
            None => found.as_ref().is_some_and(|log| log.binding().boot_id == ownership.boot_id),
        };
        let Some(log) = found else {
            return without_log(is_owned && is_of_this_boot, PendingLogError::Missing, ownership);
        };
        let records = log.go_on();
        match judge(&log, &head, (storage_len(storage)?, storage.growth()), ownership) {
            Ok(()) => {
                let cluster = head.header().geometry().cluster_size_bytes();
                let most = log.word(PendingWord::FileLen);
                let most_after_recovery = most.checked_next_multiple_of(cluster).unwrap_or(most);
                let log = Some((Arc::new(log), records));
                Ok(Self { log, most_after_recovery, is_lost: false })
            }
            Err(why) => {
                let is_lost = is_owned && is_of_this_boot && !records.is_empty();
                let found = without_log(is_lost, why, ownership)?;
                log.set_aside();
                Ok(found)
            }
        }
    }

    /// The autoclear bit of the owner, where it stays set: the next opener is to find the log as this one
    /// did.
    pub(super) fn kept_bits(&self) -> AutoclearFeatures {
        match self.log {
            Some(_) => AutoclearFeatures::OWNED,
            None => AutoclearFeatures::empty(),
        }
    }

    /// The log is believed: a recovery may write superblocks, and what it reads may be in the page cache
    /// alone.
    // spec: QED-PEND-14
    pub(super) fn before_recovery(&self, storage: &dyn Storage) -> Result<(), ImageError> {
        let Some((log, _)) = &self.log else { return Ok(()) };
        log.superblock_is(0);
        // spec: QED-PEND-08
        log.file_has(self.most_after_recovery);
        let flushed = storage.flush().inspect_err(|_| log.stop());
        flushed.map_err(ImageError::io(IoAction::Flush, HostOffset::new(0)))
    }
}

/// Whether an owner that the image names may still write, on a host that no lock reaches.
// spec: QED-HAND-03
fn check_reach(
    storage: &dyn Storage,
    head: &FoundHead,
    ownership: &Ownership<'_>,
) -> Result<(), OpenError> {
    let Some(owner) = head.owner.filter(|owner| owner.token().is_some()) else { return Ok(()) };
    let is_reached = storage.growth() == Growth::Zeros && !ownership.shared;
    let name = ImageOwner::new(ownership.token, 0, [0; 16], ownership.host_name);
    let is_this_host = name.host_name() == owner.host_name() && !ownership.shared;
    let is_this_boot = *owner.boot_id() == ownership.boot_id;
    if is_reached || is_this_boot || is_this_host || ownership.take_over {
        return Ok(());
    }
    Err(OpenError::Owned {
        host: String::from_utf8_lossy(owner.host_name()).escape_debug().to_string(),
        since: owner.since(),
    })
}

/// Whether a log is that of the image as it stands.
// spec: QED-PEND-06, QED-PEND-07
fn judge(
    log: &PendingLog,
    head: &FoundHead,
    (file_len, growth): (u64, Growth),
    ownership: &Ownership<'_>,
) -> Result<(), PendingLogError> {
    let binding = log.binding();
    let (uuid, generation) = head.identity();
    let token = head.owner.and_then(|owner| owner.token()).map_or(0, |token| token.get());
    let is_generation = match log.word(PendingWord::Generation) {
        // A recovery was under way.
        0 => true,
        stored => stored == generation || Some(stored) == generation.checked_add(1),
    };
    let id = ownership.log.map(LogPlace::id);
    let rules = [
        (id.is_some_and(|id| id.file == binding.file && id.birth == binding.birth), "file"),
        (binding.boot_id == ownership.boot_id, "boot"),
        (binding.uuid == uuid, "UUID"),
        (head.is_owned(), "mark OWNED"),
        (binding.token == token, "token"),
        (is_generation, "superblock generation"),
        // In fewer a change finds no room, whatever is flushed.
        (binding.slots >= MIN_SLOTS, "number of slots"),
    ];
    if let Some((_, what)) = rules.into_iter().find(|(holds, _)| !holds) {
        return Err(PendingLogError::OfAnother { what });
    }
    if log.word(PendingWord::Stopped) != 0 {
        return Err(PendingLogError::Stopped);
    }
    let most = log.word(PendingWord::FileLen);
    // A device gets longer without a writer.
    if file_len > most && growth == Growth::Zeros {
        return Err(PendingLogError::FileLonger { file_len, most });
    }
    Ok(())
}

/// An image without a log that is believed; an error where that loses what was acknowledged, unless the
/// caller accepts it.
// spec: QED-PEND-13
fn without_log(
    is_lost: bool,
    why: PendingLogError,
    ownership: &Ownership<'_>,
) -> Result<Inheritance, OpenError> {
    match ownership.lost {
        PendingLost::Refuse if is_lost => Err(OpenError::PendingLost(why)),
        _ => Ok(Inheritance { is_lost, ..Inheritance::default() }),
    }
}

impl Image {
    /// Makes what a dead process left part of the image, durably; then the image is whose it is opened for.
    // spec: QED-PEND-10
    pub(super) fn inherit(
        mut self,
        inherited: Inheritance,
        ownership: Option<&Ownership<'_>>,
    ) -> Result<Self, OpenError> {
        let Some(ownership) = ownership else { return Ok(self) };
        let done = self.take_over(inherited, ownership);
        // An image that does not open is not closed either: the next opener finds what this one did.
        done.inspect_err(|_| self.head.writing().stop())?;
        Ok(self)
    }

    fn take_over(
        &mut self,
        Inheritance { log, mut is_lost, .. }: Inheritance,
        ownership: &Ownership<'_>,
    ) -> Result<(), OpenError> {
        if let Some((log, records)) = log {
            let records = self.within_disk(records);
            match self.judge_records(&records) {
                Ok(()) => return self.adopt(log, &records, ownership),
                Err(why) => {
                    is_lost = without_log(true, why, ownership)?.is_lost;
                    log.set_aside();
                }
            }
        }
        if is_lost && ownership.lost == PendingLost::FailFlush {
            self.pending.fail_next_flush();
        }
        match ownership.keeps {
            Keeps::Owner => {
                self.own(ownership)?;
                self.look_before_writes(ownership);
                Ok(())
            }
            // Where another log was believed first.
            Keeps::Nothing => {
                if self.head.give_up_ownership()? {
                    self.head.sync()?;
                }
                Ok(())
            }
        }
    }

    /// Steps "replay" and "keep log": the log goes on with the token that it has, or ends.
    fn adopt(
        &mut self,
        log: Arc<PendingLog>,
        records: &[PendingRecord],
        ownership: &Ownership<'_>,
    ) -> Result<(), OpenError> {
        self.note_in(&log);
        self.replay(records)?;
        log.is_home(log.boundary());
        if ownership.keeps == Keeps::Owner {
            self.pending.keep_log(log);
            self.look_before_writes(ownership);
            return Ok(());
        }
        self.head.give_up_ownership()?;
        self.head.sync()?;
        // Nothing is noted there any more.
        log.remove();
        Ok(())
    }

    /// Steps "new log" and "own": the log is whole before the image says that there is one.
    fn own(&mut self, ownership: &Ownership<'_>) -> Result<(), OpenError> {
        let log = ownership.log.map(|place| self.new_log(place, ownership)).transpose()?;
        let Ownership { token, since, boot_id, host_name, .. } = *ownership;
        self.head.take_ownership(&ImageOwner::new(token, since, boot_id, host_name))?;
        if let Some(log) = log {
            self.pending.keep_log(log);
        }
        Ok(())
    }

    fn new_log(
        &mut self,
        place: &LogPlace,
        ownership: &Ownership<'_>,
    ) -> Result<Arc<PendingLog>, OpenError> {
        let (uuid, _) = self.head.identity();
        let binding = PendingBinding {
            slots: place.slots(),
            salt: ownership.salt,
            uuid,
            boot_id: ownership.boot_id,
            token: if self.head.has_superblock() { ownership.token.get() } else { 0 },
            file: place.id().file,
            birth: place.id().birth,
        };
        let file_len = storage_len(&**self.head.storage())?;
        let log = Arc::new(place.create(binding, file_len).map_err(OpenError::LogPlace)?);
        self.note_in(&log);
        Ok(log)
    }

    /// Where another host may write the image, it is looked at from here on before it is written.
    // spec: QED-HAND-05
    fn look_before_writes(&mut self, ownership: &Ownership<'_>) {
        if ownership.shared || self.head.storage().growth() == Growth::Stale {
            self.head.look_before_writes();
        }
    }

    /// What is about to change of superblock and file length is noted in the log from here on.
    fn note_in(&mut self, log: &Arc<PendingLog>) {
        self.head.keep_log(log.clone());
        self.space.alloc.end.keep_log(log.clone());
    }
}
