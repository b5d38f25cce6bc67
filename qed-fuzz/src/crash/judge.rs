//! What must hold after a crash, whatever survived it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use qed_check::{CheckOptions, check};
use qed_core::{
    CorruptTable, DiscardMode, GivenBacking, GuestExtentKind, Image, ImageError, LockPolicy,
    OpenError, ReadContext, ReadOnlyImage, VirtualDisk,
};
use qed_io::{Record, Recorder, Storage};
use qed_spec::GuestOffset;

use super::guest::{Guest, Tag, content};
use super::life::Host;
use super::rules::{is_kept, names_tables, same_superblocks};
use super::run::{Run, open};
use super::states::crash_points;
use super::subject::{disk_of, told};
use super::workload::CRASH_CLUSTER;
use crate::random::Random;
use crate::size::usize_of;
use crate::sparse::{EMPTY, SECTOR, SparseContent, SparseStorage};

/// Tag of the probe writes.
const PROBE: Tag = 1 << 30;

/// States of a crashed recovery: so many of one of its crash points.
const AGAIN: usize = 4;

/// What is done to a state beyond opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Once,
    /// A program that only reads opens it first, and the recovery is crashed in turn, at a moment
    /// that the number draws.
    Again(u64),
}

/// What was found of a state in which nothing is wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Verdict {
    /// Opening it changed it.
    pub(crate) recovered: bool,
    /// States of crashed recoveries that were judged, too.
    pub(crate) again: u64,
}

/// Judges one state.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn judge(
    state: &SparseContent,
    guest: &Guest,
    run: &Run,
    depth: Depth,
) -> Result<Verdict, String> {
    let gate = &run.gate;
    let host = run.has_log.then(Host::started_anew);
    let case = Case { guest, gate, discard: run.discard, host: host.as_ref() };
    if depth != Depth::Once {
        case.read_only(state)?;
    }
    let disk = disk_of(state);
    let recorder = (depth != Depth::Once).then(|| Arc::new(Recorder::new(disk.clone())));
    let storage: Arc<dyn Storage> = match &recorder {
        Some(recorder) => recorder.clone(),
        None => disk.clone(),
    };
    let image = open(storage, gate, (true, run.discard), host.as_ref()).map_err(told("opening"))?;
    let records = recorder.map(|recorder| recorder.records());
    let after = disk.content();
    is_sound(&disk)?;
    if !is_kept(&after, run.mode) {
        return Err("the image has lost what its mode needs".to_owned());
    }
    if !run.has_foreign && names_tables(state, run.mode) && !same_superblocks(state, &after) {
        return Err("recovery believes no mark and checks all tables".to_owned());
    }
    case.content(&image)?;
    let recovered = after != *state;
    if recovered {
        case.again_changes_nothing(&after)?;
    }
    if depth != Depth::Once {
        sweep(&image)?;
    }
    case.probe(image, &disk)?;
    let again = match (depth, records) {
        (Depth::Again(number), Some(records)) if recovered => {
            judge_again(state, &records, number, guest, run)
                .map_err(|problem| format!("crashed again: {problem}"))?
        }
        _ => 0,
    };
    Ok(Verdict { recovered, again })
}

/// Judges an image that a process has opened after another one has died; with a sweep, so that what that
/// left is used again.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn judge_opened(
    image: Image,
    disk: &Arc<SparseStorage>,
    guest: &Guest,
    run: &Run,
    with_sweep: bool,
) -> Result<(), String> {
    let host = Host::started_anew();
    let case = Case { guest, gate: &run.gate, discard: run.discard, host: Some(&host) };
    case.content(&image)?;
    if with_sweep {
        sweep(&image)?;
    }
    case.probe(image, disk)
}

/// Judges some states of a crash of the recovery of `state`; how many.
fn judge_again(
    state: &SparseContent,
    records: &[Record],
    number: u64,
    guest: &Guest,
    run: &Run,
) -> Result<u64, String> {
    let points = crash_points(state, records);
    let mut random = Random::new(number);
    let point = &points[usize_of(random.below(points.len() as u64))];
    let mut choices = Vec::new();
    point.for_each_choice(1 << AGAIN, 1 << AGAIN, |choice| choices.push(choice.to_vec()));
    for judged in 0..AGAIN.min(choices.len()) {
        let any = judged + usize_of(random.below((choices.len() - judged) as u64));
        choices.swap(judged, any);
        judge(&point.state(&choices[judged]), guest, run, Depth::Once)?;
    }
    Ok(AGAIN.min(choices.len()) as u64)
}

/// Whether an open image shows what the guest was promised.
///
/// # Errors
/// What it shows instead.
pub(crate) fn reads_as_promised(image: &Image, guest: &Guest) -> Result<(), String> {
    let gate = &GivenBacking(None);
    Case { guest, gate, discard: DiscardMode::Reuse, host: None }.disk_content(image)
}

struct Case<'a> {
    guest: &'a Guest,
    gate: &'a GivenBacking,
    discard: DiscardMode,
    /// Of an image that may name an owner.
    host: Option<&'a Host>,
}

impl Case<'_> {
    fn open(&self, disk: &Arc<SparseStorage>) -> Result<Image, OpenError> {
        open(disk.clone(), self.gate, (true, self.discard), self.host)
    }

    /// A reader sees what a writer will.
    fn read_only(&self, state: &SparseContent) -> Result<(), String> {
        let disk = disk_of(state);
        let context = ReadContext::new(self.gate, LockPolicy::Take);
        let image = ReadOnlyImage::open(disk, &context).map_err(told("opening to read"))?;
        self.disk_content(&image).map_err(|problem| format!("read-only: {problem}"))
    }

    /// What the guest finds is what it was promised.
    fn content(&self, image: &Image) -> Result<(), String> {
        let name = image.backing_name();
        if !self.guest.names.contains(&name) {
            return Err(format!("the backing file is {name:?}"));
        }
        self.disk_content(image)?;
        self.unwatched(image)
    }

    fn disk_content(&self, image: &dyn VirtualDisk) -> Result<(), String> {
        let size = image.len() / SECTOR;
        if !self.guest.sizes.contains(&size) {
            return Err(format!("the disk has {size} sectors, not {:?}", self.guest.sizes));
        }
        let found = self.read(image)?;
        let sectors = found.chunks_exact(usize_of(SECTOR));
        for (sector, found) in self.watched(size).zip(sectors) {
            if !self.guest.allows(sector, found) {
                let word = u64::from_le_bytes(*found.first_chunk().expect("a sector has 8 bytes"));
                let allowed = self.guest.allowed(sector);
                return Err(format!("sector {sector} holds {word:#x}, not {allowed}"));
            }
        }
        Ok(())
    }

    /// No cluster that nobody wrote to has data of its own, but the zeros of space that was kept for a
    /// request that did not come. Over a backing file none is kept.
    fn unwatched(&self, image: &Image) -> Result<(), String> {
        let mut at = 0;
        while at < image.image_size() {
            let extent = image.extent_at(at, u64::MAX).map_err(told("mapping"))?;
            if extent.depth == 0 && matches!(extent.kind, GuestExtentKind::Data { .. }) {
                let sectors = at / SECTOR..(at + extent.len) / SECTOR;
                let watched = self.guest.watched();
                for sector in sectors.filter(|it| watched.binary_search(it).is_err()) {
                    if image.backing().is_some() || !is_zero(image, sector)? {
                        return Err(format!("sector {sector} has data that nobody wrote"));
                    }
                }
            }
            at += extent.len;
        }
        Ok(())
    }

    fn again_changes_nothing(&self, after: &SparseContent) -> Result<(), String> {
        let disk = disk_of(after);
        let image = self.open(&disk).map_err(told("opening again"))?;
        let same = disk.content() == *after;
        drop(image);
        if same { Ok(()) } else { Err("a second recovery changes the disk".to_owned()) }
    }

    /// Writes a sector in each cluster and finds only that changed: a cluster that two owners have
    /// would show.
    fn probe(&self, image: Image, disk: &Arc<SparseStorage>) -> Result<(), String> {
        let size = image.image_size() / SECTOR;
        let mut expected = self.read(&image)?;
        let sectors: Vec<u64> = self.watched(size).collect();
        let clusters = sectors.chunk_by(|a, b| a / CRASH_CLUSTER == b / CRASH_CLUSTER);
        let mut place = 0;
        for (number, cluster) in clusters.enumerate() {
            let within = number % cluster.len();
            let probe = content(PROBE, cluster[within]);
            let at = GuestOffset::new(cluster[within] * SECTOR);
            image.write_at(&probe, at).map_err(told("a probe"))?;
            expected[(place + within) * probe.len()..][..probe.len()].copy_from_slice(&probe);
            place += cluster.len();
        }
        if self.read(&image)? != expected {
            return Err("a probe changed more than itself".to_owned());
        }
        image.close().map_err(told("closing"))?;
        is_sound(disk)?;
        let image = self.open(disk).map_err(told("opening the closed"))?;
        if self.read(&image)? != expected {
            return Err("what was read before is not there when it is opened again".to_owned());
        }
        Ok(())
    }

    fn watched(&self, size: u64) -> impl Iterator<Item = u64> {
        self.guest.watched().iter().copied().take_while(move |sector| *sector < size)
    }

    /// The watched sectors that lie inside the disk.
    fn read(&self, image: &dyn VirtualDisk) -> Result<Vec<u8>, String> {
        let sectors: Vec<u64> = self.watched(image.len() / SECTOR).collect();
        let mut all = vec![0xee; sectors.len() * usize_of(SECTOR)];
        let mut rest = &mut all[..];
        for run in sectors.chunk_by(|a, b| a + 1 == *b) {
            let (part, after) = rest.split_at_mut(run.len() * usize_of(SECTOR));
            image.read_at(part, run[0] * SECTOR).map_err(told("reading"))?;
            rest = after;
        }
        Ok(all)
    }
}

/// A sweep finds nothing wrong, so that the probes use what the crash has left behind; but for the slot
/// that a shrink leaves past the end of the disk.
fn sweep(image: &Image) -> Result<(), String> {
    match image.sweep() {
        Ok(true) | Err(ImageError::Corrupt(CorruptTable::L1PastDisk { .. })) => Ok(()),
        Ok(false) => Err("a sweep says nothing".to_owned()),
        Err(error) => Err(told("a sweep")(error)),
    }
}

/// Whether a sector of the disk reads as zeros.
fn is_zero(image: &Image, sector: u64) -> Result<bool, String> {
    let mut found = EMPTY;
    found[0] = 1;
    image.read_at(&mut found, GuestOffset::new(sector * SECTOR)).map_err(told("reading"))?;
    Ok(found == EMPTY)
}

/// Nothing is owned twice or lies where it must not, and no check is asked for.
fn is_sound(disk: &SparseStorage) -> Result<(), String> {
    let mut options = CheckOptions::default();
    options.threads = NonZeroUsize::new(1);
    let report = check(disk, &options).map_err(told("checking"))?;
    if report.dirty {
        return Err("the image asks for a check".to_owned());
    }
    if report.corruptions() > 0 {
        return Err(format!("the image has {:?}", report.findings));
    }
    Ok(())
}

/// One state in so many is crashed again while it recovers.
pub(crate) fn depth_of(random: &mut Random) -> Depth {
    if random.below(4) == 0 { Depth::Again(random.next_u64()) } else { Depth::Once }
}
