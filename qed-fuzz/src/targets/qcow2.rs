//! QCOW2 images: sound ones read as their models, near-valid ones as their bytes say.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_convert::qcow2::{Qcow2Image, Qcow2OpenError, Qcow2Options, Qcow2SnapshotSelector};
use qed_core::{GivenBacking, LockPolicy, RawFile, VirtualDisk};
use qed_io::MemoryStorage;

use crate::branches::Branches;
use crate::generators::image::backing_bytes;
use crate::generators::qcow2::Qcow2Case;
use crate::model::Model;
use crate::oracles::assert_reads_as;
use crate::oracles::qcow2::Qcow2Reference;
use crate::sparse::SparseStorage;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    if from.ratio(1, 3)? { run_sound(from) } else { run_near_valid(from, branches) }
}

fn run_sound(from: &mut Unstructured<'_>) -> Result<()> {
    let backing = backing_bytes(512 * from.int_in_range(0..=64)?);
    let under = Model::of(backing.clone());
    let is_overlay: bool = from.arbitrary()?;
    let case = Qcow2Case::sound(from, is_overlay.then_some(&under))?;
    let raw = RawFile::open(Arc::new(MemoryStorage::new(backing))).expect("memory has a length");
    let gate = GivenBacking(Some(Arc::new(raw) as Arc<dyn VirtualDisk>));
    let storage = Arc::new(case.storage);
    let image = open(&storage, &gate, None).expect("a sound image opens");
    assert_reads_as(&image, &case.model);
    assert_eq!(image.read_bitmaps().expect("a sound directory").len(), case.bitmaps);
    assert_eq!(image.snapshots().len(), case.snapshots.len());
    for (number, model) in (1..).zip(&case.snapshots) {
        let id = Qcow2SnapshotSelector::Id(format!("{number}").into_bytes());
        let snapshot = open(&storage, &gate, Some(id)).expect("a sound snapshot opens");
        assert_reads_as(&snapshot, model);
    }
    Ok(())
}

fn run_near_valid(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let storage = Arc::new(Qcow2Case::near_valid(from)?.storage);
    let gate = GivenBacking(None);
    let content = storage.content();
    for id in 1..=2 {
        let id = Qcow2SnapshotSelector::IdOrName(format!("{id}").into_bytes());
        if let Ok(snapshot) = open(&storage, &gate, Some(id)) {
            walk(&snapshot);
        }
    }
    let opened = open(&storage, &gate, None);
    branches.note("open", opened.as_ref().map(drop));
    let Ok(image) = opened else { return Ok(()) };
    branches.note("bitmaps", image.read_bitmaps().map(drop));
    Qcow2Reference::new(&content).assert_shown_by(&image, branches);
    assert_eq!(storage.content(), content, "reading changed the image");
    Ok(())
}

fn open(
    storage: &Arc<SparseStorage>,
    gate: &GivenBacking,
    snapshot: Option<Qcow2SnapshotSelector>,
) -> std::result::Result<Qcow2Image, Qcow2OpenError> {
    let options = Qcow2Options { snapshot, ..Qcow2Options::new(gate, LockPolicy::Take) };
    Qcow2Image::open(Arc::<SparseStorage>::clone(storage), &options)
}

/// Goes over a disk of which nothing is known; it ends, and does not panic.
fn walk(disk: &dyn VirtualDisk) {
    let (mut at, mut buf) = (0, [0; 4096]);
    for _ in 0..256 {
        let Ok(extent) = disk.extent_at(at, disk.len() - at) else { return };
        assert!(extent.len > 0 || at == disk.len(), "an empty extent at {at:#x}");
        let len = extent.len.min(4096);
        let _ = disk.read_at(&mut buf[..crate::size::usize_of(len)], at);
        at += extent.len;
        if at >= disk.len() {
            return;
        }
    }
}
