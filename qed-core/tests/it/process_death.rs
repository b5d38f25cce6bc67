//! The death of the process alone: what was acknowledged is there when the next one opens the image. A
//! process dies here by forgetting its image, with the storage and the pending log as they are.

use std::num::NonZeroU64;
use std::sync::Arc;

use qed_core::{
    BackingGate, Checked, CrashLeft, DEFAULT_CACHE_LIMIT_BYTES, GivenBacking, Image, ImageError,
    Keeps, Layout, LockPolicy, OpenError, Ownership, PendingLogError, PendingLost, Recovered,
    RecoveryPolicy, RefuseBacking, Shrink, WriteContext, ZeroMode,
};
use qed_io::{MemoryStorage, Operation, Recorder, Storage};
use qed_pending::{FileId, LogPlace, SLOTS};
use qed_spec::GuestOffset;

use crate::support::{Bytes, COMPAT, JOURNAL, Random, new_storage_of, small_geometry};

pub(crate) const CLUSTER: u64 = 4096;
pub(crate) const DISK: u64 = 2048 * CLUSTER;
pub(crate) const MODES: [Layout; 3] = [Layout::Classic, COMPAT, JOURNAL];

/// A host, on which images are opened again and again.
pub(crate) struct Host {
    pub(crate) place: LogPlace,
    pub(crate) boot_id: [u8; 16],
    pub(crate) lost: PendingLost,
    pub(crate) keeps: Keeps,
    pub(crate) cache_limit_bytes: u64,
}

impl Host {
    pub(crate) fn new() -> Self {
        let place = LogPlace::own(FileId { file: [1, 2], birth: [3, 4] });
        let (lost, keeps) = (PendingLost::Refuse, Keeps::Owner);
        Self { place, boot_id: [7; 16], lost, keeps, cache_limit_bytes: DEFAULT_CACHE_LIMIT_BYTES }
    }

    /// After a start of the system.
    pub(crate) fn started_anew() -> Self {
        Self { boot_id: [8; 16], ..Self::new() }
    }

    pub(crate) fn open(&self, storage: &Arc<MemoryStorage>) -> Result<Image, OpenError> {
        self.open_over(storage.clone(), &RefuseBacking)
    }

    pub(crate) fn open_over(
        &self,
        storage: Arc<dyn Storage>,
        gate: &dyn BackingGate,
    ) -> Result<Image, OpenError> {
        let ownership = Ownership {
            boot_id: self.boot_id,
            host_name: b"here",
            since: 1,
            token: NonZeroU64::new(99).unwrap(),
            salt: [5, 6],
            log: Some(&self.place),
            keeps: self.keeps,
            lost: self.lost,
            shared: false,
            take_over: false,
        };
        let context = WriteContext {
            ownership: Some(&ownership),
            cache_limit_bytes: self.cache_limit_bytes,
            ..WriteContext::new(gate, LockPolicy::None, RecoveryPolicy::Run(&clear_need_check))
        };
        Image::open(storage, &context)
    }
}

/// Without reading a table: none can be in doubt where only a process died.
pub(crate) fn clear_need_check(
    storage: &dyn Storage,
    left: &CrashLeft,
) -> Result<Recovered, Box<dyn std::error::Error + Send + Sync>> {
    let mut features = [0];
    storage.read_at(&mut features, 16)?;
    storage.write_at(&[features[0] & !2], 16)?;
    let checked = match left {
        CrashLeft::AllTables => Checked::AllTables,
        CrashLeft::DirtyTables(_) => Checked::DirtyTables,
    };
    Ok(Recovered { checked, mended: 0 })
}

/// As a process that is killed: nothing is flushed, nothing closed.
pub(crate) fn dies(image: Image) {
    std::mem::forget(image);
}

/// A disk, and what a guest that wrote it knows.
pub(crate) struct Guest {
    expected: Vec<u8>,
    random: Random,
}

impl Guest {
    pub(crate) fn new(seed: u64, backing: &[u8]) -> Self {
        let mut expected = vec![0; DISK as usize];
        expected[..backing.len()].copy_from_slice(backing);
        Self { expected, random: Random(seed) }
    }

    /// Writes, zeroes and discards, and now and then flushes.
    pub(crate) fn works(&mut self, image: &Image, requests: usize) {
        for _ in 0..requests {
            let at = self.random.below(DISK / 512) * 512;
            let len = ((1 + self.random.below(40)) * 512).min(DISK - at);
            let range = at as usize..(at + len) as usize;
            match self.random.below(16) {
                0 => image.flush().unwrap(),
                1..4 => {
                    image.write_zeroes(GuestOffset::new(at), len, ZeroMode::Unmap).unwrap();
                    self.expected[range].fill(0);
                }
                4..6 => {
                    let end = (at + len) / CLUSTER * CLUSTER;
                    let start = at.next_multiple_of(CLUSTER);
                    image.discard(GuestOffset::new(at), len).unwrap();
                    if start < end {
                        self.expected[start as usize..end as usize].fill(0);
                    }
                }
                _ => {
                    let byte = self.random.below(255) as u8 + 1;
                    self.expected[range.clone()].fill(byte);
                    image.write_at(&self.expected[range], GuestOffset::new(at)).unwrap();
                }
            }
        }
    }

    pub(crate) fn zeroes(&mut self, image: &Image, at: GuestOffset, len: u64, mode: ZeroMode) {
        image.write_zeroes(at, len, mode).unwrap();
        self.expected[at.get() as usize..(at.get() + len) as usize].fill(0);
    }

    pub(crate) fn finds_all(&self, image: &Image) {
        let mut found = vec![0; DISK as usize];
        image.read_at(&mut found, GuestOffset::new(0)).unwrap();
        let differs = found.iter().zip(&self.expected).position(|(a, b)| a != b);
        assert_eq!(differs, None, "the first byte that was acknowledged and is lost");
    }
}

// spec-test: QED-PEND-01, QED-PEND-02, QED-PEND-10
#[test]
fn what_was_acknowledged_is_there_after_the_death_of_the_process() {
    let base = vec![0xba; DISK as usize / 2];
    for mode in MODES {
        for backing in [None, Some(&base)] {
            let host = Host::new();
            let storage = new_storage_of(mode, small_geometry(), DISK, backing.is_some());
            let mut guest = Guest::new(11, backing.map_or(&[], |base| base));
            for life in 0..12 {
                let disk = || Arc::new(Bytes(base.clone())) as _;
                let gate = GivenBacking(backing.map(|_| disk()));
                let image = host.open_over(storage.clone(), &gate).unwrap();
                guest.finds_all(&image);
                guest.works(&image, 60);
                // One that moves what is stored, too.
                if life % 3 == 0 && mode != JOURNAL {
                    image.sweep().unwrap();
                }
                if life % 5 == 4 { image.close().unwrap() } else { dies(image) }
            }
        }
    }
}

#[test]
fn a_process_that_keeps_no_log_takes_its_unflushed_writes_along() {
    let storage = new_storage_of(COMPAT, small_geometry(), DISK, false);
    let host = Host { keeps: Keeps::Nothing, ..Host::new() };
    let image = host.open(&storage).unwrap();
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    dies(image);
    let mut found = [9; 512];
    host.open(&storage).unwrap().read_at(&mut found, GuestOffset::new(0)).unwrap();
    assert_eq!(found, [0; 512], "else the tests of this file show nothing");
}

// spec-test: QED-PEND-10
#[test]
fn what_was_replayed_is_durable_before_the_image_serves() {
    for mode in MODES {
        let (host, storage) = (Host::new(), new_storage_of(mode, small_geometry(), DISK, false));
        let mut guest = Guest::new(5, &[]);
        let image = host.open(&storage).unwrap();
        guest.works(&image, 100);
        dies(image);
        dies(host.open(&storage).unwrap());
        // A reboot takes the log away; the file is as it was flushed.
        let rebooted = Host { boot_id: [8; 16], ..Host::new() };
        guest.finds_all(&rebooted.open(&storage).unwrap());
    }
}

// spec-test: QED-PEND-04, QED-PEND-05
#[test]
fn a_log_that_is_full_is_flushed_and_goes_on() {
    let disk = 2 * u64::from(SLOTS) * CLUSTER;
    let storage = new_storage_of(COMPAT, small_geometry(), disk, false);
    let host = Host::new();
    let image = host.open(&storage).unwrap();
    let end = u64::from(SLOTS) + 1000;
    for cluster in 0..end {
        // Every other cluster, so that each has a record of its own.
        image.write_at(&[1; 1], GuestOffset::new(2 * cluster * CLUSTER % disk)).unwrap();
    }
    dies(image);
    let image = host.open(&storage).unwrap();
    for cluster in 0..end {
        let mut byte = [0];
        image.read_at(&mut byte, GuestOffset::new(2 * cluster * CLUSTER % disk)).unwrap();
        assert_eq!(byte, [1], "cluster {cluster}");
    }
}

#[test]
fn a_closed_image_names_nobody_and_leaves_no_log() {
    for mode in MODES {
        let (host, storage) = (Host::new(), new_storage_of(mode, small_geometry(), DISK, false));
        let image = host.open(&storage).unwrap();
        image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
        assert!(host.place.find().unwrap().is_some());
        image.close().unwrap();
        assert!(host.place.find().unwrap().is_none());
        assert_eq!(qed_core::read_owner(&*storage).unwrap(), None);
        let mut autoclear = [0; 8];
        storage.read_at(&mut autoclear, 32).unwrap();
        assert_eq!(u64::from_le_bytes(autoclear) >> 37 & 1, 0, "OWNED");
    }
}

#[test]
fn a_tool_makes_what_it_finds_durable_and_keeps_no_log() {
    for mode in MODES {
        let (mut host, storage) =
            (Host::new(), new_storage_of(mode, small_geometry(), DISK, false));
        let mut guest = Guest::new(21, &[]);
        let image = host.open(&storage).unwrap();
        guest.works(&image, 50);
        dies(image);
        host.keeps = Keeps::Nothing;
        let image = host.open(&storage).unwrap();
        guest.finds_all(&image);
        assert!(host.place.find().unwrap().is_none(), "the log has ended");
        dies(image);
        guest.finds_all(&host.open(&storage).unwrap());
    }
}

/// An image of which a process died that had acknowledged a write, and its host.
pub(crate) fn left_by_the_dead(mode: Layout) -> (Host, Arc<MemoryStorage>) {
    let (host, storage) = (Host::new(), new_storage_of(mode, small_geometry(), DISK, false));
    let image = host.open(&storage).unwrap();
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    image.flush().unwrap();
    image.write_at(&[2; 512], GuestOffset::new(CLUSTER)).unwrap();
    dies(image);
    (host, storage)
}

/// The first bytes of the first two clusters.
pub(crate) fn found(image: &Image) -> [u8; 2] {
    [0, CLUSTER].map(|at| {
        let mut byte = [0];
        image.read_at(&mut byte, GuestOffset::new(at)).unwrap();
        byte[0]
    })
}

// spec-test: QED-PEND-13
#[test]
fn a_log_that_is_gone_is_noticed_unless_the_system_was_started_anew() {
    for mode in [COMPAT, JOURNAL] {
        let (host, storage) = left_by_the_dead(mode);
        assert_eq!(found(&host.open(&storage).unwrap()), [1, 2]);
        let (_, storage) = left_by_the_dead(mode);
        let without = Host::new();
        let refused = without.open(&storage).unwrap_err();
        assert!(matches!(refused, OpenError::PendingLost(PendingLogError::Missing)), "{refused:?}");
        let refused = without.open(&storage).unwrap_err();
        assert!(matches!(refused, OpenError::PendingLost(_)), "told again: {refused:?}");
        let accepts = Host { lost: PendingLost::FailFlush, ..Host::new() };
        let image = accepts.open(&storage).unwrap();
        assert_eq!(found(&image), [1, 0]);
        assert!(matches!(image.flush(), Err(ImageError::PendingLost)));
        image.flush().unwrap();
        let (_, storage) = left_by_the_dead(mode);
        let rebooted = Host { boot_id: [8; 16], ..Host::new() };
        assert_eq!(found(&rebooted.open(&storage).unwrap()), [1, 0]);
    }
}

// spec-test: QED-PEND-06
#[test]
fn a_log_of_another_boot_file_or_owner_is_not_believed() {
    for mode in MODES {
        let (host, storage) = left_by_the_dead(mode);
        let kept_over_a_boot = Host { boot_id: [8; 16], place: host.place.clone(), ..Host::new() };
        assert_eq!(found(&kept_over_a_boot.open(&storage).unwrap()), [1, 0]);
        // Another program clears the bit that it does not know, as QEMU does.
        let (host, storage) = left_by_the_dead(mode);
        let context = WriteContext::new(
            &RefuseBacking,
            LockPolicy::None,
            RecoveryPolicy::Run(&clear_need_check),
        );
        let other = Image::open(storage.clone(), &context).unwrap();
        other.write_at(&[7; 512], GuestOffset::new(CLUSTER)).unwrap();
        other.close().unwrap();
        assert_eq!(found(&host.open(&storage).unwrap()), [1, 7], "what was written since stays");
    }
}

// spec-test: QED-PEND-07, QED-PEND-08
#[test]
fn a_log_of_a_file_that_another_program_changed_is_not_believed() {
    for mode in MODES {
        let (host, storage) = left_by_the_dead(mode);
        let len = storage.len().unwrap();
        storage.set_len(len + 64 * CLUSTER).unwrap();
        let refused = host.open(&storage).unwrap_err();
        let is_longer = matches!(
            refused,
            OpenError::PendingLost(PendingLogError::FileLonger { file_len, most })
                if file_len > most
        );
        assert!(is_longer, "{refused:?}");
        storage.set_len(len).unwrap();
        assert_eq!(found(&host.open(&storage).unwrap()), [1, 2], "it was not touched");
    }
    // An entry that neither the log nor the writer made.
    let (host, storage) = left_by_the_dead(COMPAT);
    let mut slot = [0; 8];
    storage.read_at(&mut slot, 64).unwrap();
    let l1 = {
        let mut offset = [0; 8];
        storage.read_at(&mut offset, 40).unwrap();
        u64::from_le_bytes(offset)
    };
    storage.read_at(&mut slot, l1).unwrap();
    let table = u64::from_le_bytes(slot);
    storage.write_at(&1_u64.to_le_bytes(), table + 8).unwrap();
    let refused = host.open(&storage).unwrap_err();
    let is_foreign = matches!(
        refused,
        OpenError::PendingLost(PendingLogError::Foreign { guest }) if guest.get() == 1
    );
    assert!(is_foreign, "{refused:?}");
}

// spec-test: QED-PEND-14
#[test]
fn what_the_dead_wrote_is_flushed_before_anything_else_is_written() {
    for mode in MODES {
        let (host, storage) = left_by_the_dead(mode);
        let recorder = Arc::new(Recorder::new(storage));
        let image = host.open_over(recorder.clone(), &RefuseBacking).unwrap();
        assert_eq!(found(&image), [1, 2]);
        let first = recorder.records().into_iter().next().map(|record| record.operation);
        assert!(matches!(first, Some(Operation::Flush)), "{mode:?}: {first:?}");
    }
}

// spec-test: QED-PEND-11
#[test]
fn records_of_before_a_resize_are_not_replayed_after_it() {
    for mode in MODES {
        let (host, storage) = left_by_the_dead(mode);
        let image = host.open(&storage).unwrap();
        let last = GuestOffset::new(DISK - CLUSTER);
        image.write_at(&[3; 512], last).unwrap();
        image.resize(DISK / 2, Shrink::Allow).unwrap();
        image.write_at(&[4; 512], GuestOffset::new(2 * CLUSTER)).unwrap();
        image.resize(DISK, Shrink::Refuse).unwrap();
        dies(image);
        let image = host.open(&storage).unwrap();
        let mut byte = [9];
        image.read_at(&mut byte, last).unwrap();
        assert_eq!(byte, [0], "what was cut off");
        image.read_at(&mut byte, GuestOffset::new(2 * CLUSTER)).unwrap();
        assert_eq!((byte, found(&image)), ([4], [1, 2]));
    }
}

// spec-test: QED-PEND-13
#[test]
fn a_host_that_does_not_know_its_boot_takes_no_owner_for_one_of_before_it() {
    for mode in [COMPAT, JOURNAL] {
        let (_, storage) = left_by_the_dead(mode);
        let unknown = Host { boot_id: [0; 16], ..Host::new() };
        let refused = unknown.open(&storage).unwrap_err();
        assert!(matches!(refused, OpenError::PendingLost(_)), "{refused:?}");
    }
}
