//! The fuzz targets: each a generator and its oracles. A fuzzer drives them, and so do the tests.

mod convert;
mod journal;
mod operations;
mod pending;
mod qcow2;
mod virtqueue;
mod writes;

use std::io::Cursor;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_convert::chain::{ChainOptions, FormatSource, ImageFormat, TrustMagic};
use qed_core::{
    CreateOptions, GivenBacking, Image, LockPolicy, OpenError, RawFile, RecoveryPolicy,
    RefuseBacking, VirtualDisk, WriteContext, create,
};
use qed_export::nbd::converse;
use qed_export::server::{Export, Exports};
use qed_export::{BlockDevice, QedDisk, RawDisk};
use qed_io::{MemoryStorage, Storage};

use crate::branches::Branches;
use crate::generators::chain_files::ChainFiles;
use crate::generators::dialogue::{DISK_SIZE, Dialogue, NAMES};
use crate::generators::header::{HeaderCase, any_geometry};
use crate::generators::image::{ImageCase, backing_bytes};
use crate::generators::number::number;
use crate::generators::superblock::{SuperblockCase, anchor};
use crate::oracles::Strict;
use crate::oracles::chain::assert_walked;
use crate::oracles::dialogue::{assert_answers, bytes_of};
use crate::oracles::guest::{Guest, Reader};
use crate::oracles::header::{assert_geometry, assert_parsed_by_the_rules};
use crate::oracles::qemu::assert_agrees;
use crate::oracles::repair::{assert_leaks_repaired, assert_recovered, assert_repaired};
use crate::oracles::superblock::{assert_anchor, assert_chosen_by_the_rules};
use crate::oracles::validity::{assert_checked, assert_opened, open_for_reading, reference_of};
use crate::size::usize_of;

/// One target: bytes in, a panic where an oracle says no.
#[derive(Debug)]
pub struct Target {
    /// As of its program in `fuzz_targets`.
    pub name: &'static str,
    /// How many seeded inputs the tests give it: a few seconds of work.
    pub runs_in_tests: u64,
    run: fn(&mut Unstructured<'_>, &mut Branches) -> Result<()>,
}

/// Every target.
pub const TARGETS: [Target; 15] = [
    Target { name: "header", runs_in_tests: 200_000, run: header },
    Target { name: "superblock", runs_in_tests: 20_000, run: superblock },
    Target { name: "image", runs_in_tests: 6_000, run: image },
    Target { name: "map", runs_in_tests: 6_000, run: map },
    Target { name: "repair", runs_in_tests: 6_000, run: repair },
    Target { name: "writes", runs_in_tests: 6_000, run: writes::run },
    Target { name: "journal", runs_in_tests: 6_000, run: journal::run },
    Target { name: "pending", runs_in_tests: 2_000, run: pending::run },
    Target { name: "operations", runs_in_tests: 5_000, run: operations::run },
    Target { name: "qcow2", runs_in_tests: 10_000, run: qcow2::run },
    Target { name: "convert", runs_in_tests: 3_000, run: convert::run },
    Target { name: "chain", runs_in_tests: 2_000, run: chain },
    Target { name: "nbd", runs_in_tests: 5_000, run: nbd },
    Target { name: "virtqueue", runs_in_tests: 10_000, run: virtqueue::run },
    Target { name: "qemu", runs_in_tests: 200, run: qemu },
];

impl Target {
    /// Makes an input of the bytes and holds the oracles against it.
    ///
    /// # Panics
    /// If an oracle finds a fault.
    pub fn run(&self, bytes: &[u8], branches: &mut Branches) {
        // Bytes that a generator has no use for are an input that says nothing.
        let _ = (self.run)(&mut Unstructured::new(bytes), branches);
    }
}

/// Runs the target of this name, as its fuzz program does.
///
/// # Panics
/// If there is no such target, or if an oracle finds a fault.
pub fn fuzz(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a fuzz program has the name of a target").run(bytes, &mut Branches::unseen());
}

/// Headers, and every conversion of their shape.
fn header(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let geometry = any_geometry(from)?;
    let landmarks = [geometry.cluster_size_bytes(), geometry.max_image_size_bytes()];
    for _ in 0..3 {
        assert_geometry(geometry, number(from, &landmarks)?);
    }
    assert_parsed_by_the_rules(&HeaderCase::any(from)?, branches);
    Ok(())
}

/// The two copies of the superblock, and the anchor.
fn superblock(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let case = SuperblockCase::any(from)?;
    assert_chosen_by_the_rules(&case, branches);
    assert_anchor(&anchor(from, case.name)?, case.name, branches);
    Ok(())
}

/// Near-valid images: check, reader and writer agree.
fn image(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let storage = Arc::new(ImageCase::near_valid(from)?.storage);
    let gate = GivenBacking(None);
    let Some(reference) = reference_of(&storage, &gate) else { return Ok(()) };
    let report = assert_checked(&*storage, &reference, branches);
    assert_opened(&storage, &gate, &reference, &report, branches);
    Ok(())
}

/// Near-valid images open for reading, perhaps over a backing file: each byte is mapped once, and reads
/// as the bytes of the files say.
fn map(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let backing_len = 8 * from.int_in_range(0..=16384)?;
    let backing = backing_bytes(if from.arbitrary()? { backing_len } else { 0 });
    let storage = Arc::new(ImageCase::near_valid(from)?.storage);
    let raw = RawFile::open(Arc::new(MemoryStorage::new(backing.clone())));
    let raw: Arc<dyn VirtualDisk> = Arc::new(Strict(raw.expect("memory has a length")));
    let gate = GivenBacking(Some(raw));
    let Some(reference) = reference_of(&storage, &gate) else { return Ok(()) };
    let before = storage.content();
    let image = match open_for_reading(&storage, &gate) {
        Ok(image) => image,
        Err(OpenError::BackingName(_)) => return Ok(()),
        Err(error) => panic!("{error:?}"),
    };
    let under = image.backing().map(|_| &backing[..]);
    let guest = Guest::new(&reference, Reader::AsItIs, under);
    branches.note("backing", under);
    for table in &reference.tables {
        branches.note(if reference.is_dirty { "dirty-table" } else { "table" }, table.start);
    }
    for run in guest.runs() {
        branches.note(if reference.is_dirty { "dirty-map" } else { "map" }, run.source);
    }
    guest.assert_shown_by(&image);
    let edges: Vec<u64> =
        guest.runs().iter().flat_map(|run| [run.guest.start, run.guest.end]).collect();
    for _ in 0..4 {
        let start = number(from, &edges)?.min(guest.len());
        let len = from.int_in_range(0..=20_000)?;
        guest.assert_read_by(&image, start..start.saturating_add(len).min(guest.len()));
    }
    assert_eq!(storage.content(), before, "reading changed the image");
    Ok(())
}

/// A device has no holes that could be skipped, and whole sectors.
const MAX_DEVICE_LEN: u64 = 4 << 20;

/// Near-valid images repaired and recovered, as files and as block devices.
fn repair(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let (how, is_device) = (from.int_in_range(0..=3)?, from.ratio(1, 8)?);
    let storage = ImageCase::near_valid(from)?.storage;
    let len = storage.content().len();
    let is_device = is_device && len <= MAX_DEVICE_LEN && len.is_multiple_of(512);
    let storage = Arc::new(if is_device { storage.into_device() } else { storage });
    let gate = GivenBacking(None);
    let Some(reference) = reference_of(&storage, &gate) else { return Ok(()) };
    match how {
        0 => assert_leaks_repaired(&storage, &reference),
        1 => assert_recovered(&storage, &reference, branches),
        _ => assert_repaired(&storage, &reference, &gate, branches),
    }
    Ok(())
}

/// Folders of image files that name each other: which are opened, and what the disk then reads as.
fn chain(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let formats = [ImageFormat::Raw, ImageFormat::Qed, ImageFormat::Qcow2];
    let mut options = ChainOptions::default();
    let trust = from.int_in_range(0..=3_u8)?;
    for _ in 0..from.int_in_range(0..=4_u8)?.saturating_sub(2) {
        options.backing_formats.push(*from.choose(&formats)?);
    }
    let (is_confined, is_stated) = (from.arbitrary()?, from.ratio(3, 4)?);
    let files = ChainFiles::any(from)?;
    options.trust_magic = match trust {
        0 => TrustMagic::Never,
        1 => TrustMagic::Always,
        2 => TrustMagic::Near(Vec::new()),
        _ => TrustMagic::Near(vec![files.folder()]),
    };
    if is_confined {
        options.confine_to = Some(files.folder());
    }
    let top = match is_stated {
        true => FormatSource::Stated(files.files[0].format),
        false => FormatSource::Magic,
    };
    assert_walked(&files, top, &options, branches);
    Ok(())
}

/// Dialogues with the NBD server: whatever a client says, each word has its one answer, and the disk is
/// what was written.
fn nbd(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let dialogue = Dialogue::any(from)?;
    let mut said = Vec::new();
    let ended = converse(&exports(), &mut Cursor::new(bytes_of(&dialogue)), &mut said);
    branches.note("end", ended.map_err(|error| error.kind()));
    assert_answers(&dialogue, &said, branches);
    Ok(())
}

/// A QED image and a raw disk.
fn exports() -> Exports {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    create(&*storage, &CreateOptions::new(DISK_SIZE)).expect("memory takes every image");
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Image::open(storage, &context).expect("a new image opens");
    let raw = Arc::new(MemoryStorage::new(vec![0; usize_of(DISK_SIZE)]));
    let disks: [Arc<dyn BlockDevice>; 2] =
        [Arc::new(QedDisk::new(image)), Arc::new(RawDisk::open(raw).expect("memory has a length"))];
    let exports = disks.into_iter().zip(NAMES).map(|(disk, name)| Export::new(name, disk));
    Exports::new(exports.collect()).expect("two names")
}

/// Near-valid images and QEMU: it opens, checks and reads them alike.
fn qemu(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    assert_agrees(&Arc::new(ImageCase::near_valid(from)?.storage), branches);
    Ok(())
}
