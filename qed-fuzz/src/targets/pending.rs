//! Images of which a process died, and a pending log that says anything: it is refused, or what it says
//! makes a sound image, which the next process finds again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_check::{CheckOptions, check, recovery_hook};
use qed_core::{
    CreateOptions, Image, LockPolicy, OpenError, RecoveryPolicy, RefuseBacking, WriteContext,
    create,
};
use qed_io::{MemoryStorage, Recorder, Storage};
use qed_pending::MIN_SLOTS;
use qed_spec::{
    Geometry, GuestCluster, GuestOffset, PENDING_HEADER_LEN_BYTES, PendingBinding, PendingRecord,
    PendingWord,
};

use crate::branches::Branches;
use crate::crash::life::{Host, Life};
use crate::crash::workload::Mode;
use crate::generators::number::number;

const CLUSTER: u64 = 4096;
/// Clusters of the disk: a little more than a slice of a table.
const CLUSTERS: u64 = 520;
const MAX_RECORDS: u64 = 24;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let mode = *from.choose(&Mode::ALL)?;
    let host = Host::new();
    let storage = left_by_the_dead(mode, &host);
    let mut words = host.place().words().expect("the dead process kept a log");
    forge(from, &mut words, &*storage)?;
    host.place().put(Some(&words));
    let before = storage.to_vec();
    let opened = open(&storage, &host);
    branches.note("opened", opened.as_ref().map(|_| ()));
    let (image, life) = match opened {
        Err(error) => {
            let is_told = matches!(error, OpenError::PendingLost(_));
            assert!(is_told, "refused for another reason: {error:?}");
            assert_refused(mode, &storage, &before);
            return Ok(());
        }
        Ok(opened) => opened,
    };
    let disk = disk_of(&image);
    host.dies(&life, || drop(image));
    let (image, _) = open(&storage, &host).expect("the log is its own now");
    assert!(disk_of(&image) == disk, "what was replayed stays");
    image.write_at(&[0xee; 512], GuestOffset::new(0)).expect("memory takes it");
    image.close().expect("memory takes it");
    let report = check(&*storage, &CheckOptions::default()).expect("memory can be read");
    assert_eq!(report.corruptions(), 0, "{:?}", report.findings);
    Ok(())
}

/// An image with data, flushed and not, whose process has died.
fn left_by_the_dead(mode: Mode, host: &Host) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::default());
    let geometry = Geometry::new(4096, 1).expect("a legal shape");
    let options =
        CreateOptions { geometry, layout: mode.layout(), ..CreateOptions::new(CLUSTERS * CLUSTER) };
    create(&*storage, &options).expect("memory takes every image");
    let (image, life) = open(&storage, host).expect("a new image opens");
    let write = |cluster: u64| {
        let at = GuestOffset::new(cluster * CLUSTER);
        image.write_at(&[0x11; 512], at).expect("memory takes it");
    };
    (0..4).for_each(write);
    image.flush().expect("memory takes it");
    [6, 7, 513].into_iter().for_each(write);
    image.discard(GuestOffset::new(CLUSTER), CLUSTER).expect("memory takes it");
    host.dies(&life, || drop(image));
    storage
}

fn open(
    storage: &Arc<MemoryStorage>,
    host: &Host,
) -> std::result::Result<(Image, Arc<Life>), OpenError> {
    let ownership = host.ownership();
    let recorder = Arc::new(Recorder::new(storage.clone()));
    let life = host.live(recorder.clone(), recorder, Arc::default());
    let recovery = RecoveryPolicy::Run(&recovery_hook);
    let context = WriteContext {
        ownership: Some(&ownership),
        cache_limit_bytes: 0,
        ..WriteContext::new(&RefuseBacking, LockPolicy::None, recovery)
    };
    Ok((Image::open(life.clone(), &context)?, life))
}

/// Puts records, words and bytes into a log.
fn forge(from: &mut Unstructured<'_>, words: &mut [u64], storage: &dyn Storage) -> Result<()> {
    let len = storage.len().expect("memory has a length");
    let landmarks = [len, len - CLUSTER, CLUSTER, CLUSTERS, 512, 6 * CLUSTER];
    let binding = words.first_chunk().and_then(PendingBinding::parse);
    let salt = binding.expect("a log of this process").salt;
    let known = records_of(words, salt);
    let slots = PENDING_HEADER_LEN_BYTES / 8;
    let mut number_of = words[PendingWord::Tail.index()] + known.len() as u64;
    for _ in 0..from.int_in_range(0..=MAX_RECORDS)? {
        let host = |from: &mut Unstructured<'_>| -> Result<u64> {
            Ok(match from.int_in_range(0..=4_u8)? {
                0 => from.int_in_range(0..=1)?,
                1 => number(from, &landmarks)?,
                2 => known.values().copied().nth(from.int_in_range(0..=3)?).unwrap_or_default(),
                _ => from.int_in_range(0..=len / CLUSTER + 1)? * CLUSTER,
            })
        };
        let guest = match from.ratio(1, 4)? {
            true => number(from, &landmarks)?,
            false => from.int_in_range(0..=CLUSTERS)?,
        };
        let count = match from.ratio(1, 4)? {
            true => u32::try_from(number(from, &landmarks)? & 0xffff_ffff).expect("32 bits"),
            false => from.int_in_range(1..=3)?,
        };
        let (value, was) = (host(from)?, host(from)?);
        let record = PendingRecord { guest: GuestCluster::new(guest), count, value, was };
        let slot = slots + 8 * (crate::size::usize_of(number_of) % MIN_SLOTS as usize);
        words[slot..slot + 8].copy_from_slice(&record.encode(salt, number_of));
        // Now and then a hole.
        number_of += 1 + u64::from(from.ratio(1, 8)?);
    }
    if from.ratio(1, 4)? {
        let word = *from.choose(&[
            PendingWord::Tail,
            PendingWord::FileLen,
            PendingWord::Generation,
            PendingWord::Stopped,
        ])?;
        words[word.index()] = number(from, &landmarks)?;
    }
    if from.ratio(1, 8)? {
        let index = from.int_in_range(0..=words.len() - 1)?;
        words[index] = from.arbitrary()?;
    }
    Ok(())
}

/// The values of the records that the process left, by number.
fn records_of(words: &[u64], salt: [u64; 2]) -> BTreeMap<u64, u64> {
    let slots = words[PENDING_HEADER_LEN_BYTES / 8..].as_chunks::<8>().0;
    let parse = |number: u64| {
        let slot = &slots[crate::size::usize_of(number) % slots.len()];
        Some((number, PendingRecord::parse(slot, salt, number)?.value))
    };
    (words[PendingWord::Tail.index()]..).map_while(parse).collect()
}

/// What a log that is refused leaves: the image as a start of the system would find it.
fn assert_refused(mode: Mode, storage: &MemoryStorage, before: &[u8]) {
    let disk = |bytes: Vec<u8>| {
        let storage = Arc::new(MemoryStorage::new(bytes));
        let recovery = RecoveryPolicy::Run(&recovery_hook);
        let context = WriteContext::new(&RefuseBacking, LockPolicy::None, recovery);
        disk_of(&Image::open(storage, &context).expect("without its log it is an image"))
    };
    let is_same = disk(storage.to_vec()) == disk(before.to_vec());
    assert!(is_same, "{mode}: a log that is refused changed the disk");
}

fn disk_of(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; crate::size::usize_of(CLUSTERS * CLUSTER)];
    image.read_at(&mut bytes, GuestOffset::new(0)).expect("memory can be read");
    bytes
}
