//! Sound virtual disks of every format, over each other, with models of what they hold.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_convert::qcow2::{Qcow2Image, Qcow2Options};
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, GivenBacking, Identity, Layout, LockPolicy,
    RawFile, ReadContext, ReadOnlyImage, VirtualDisk, create,
};
use qed_io::Storage;
use qed_spec::{Epoch, Geometry, ImageUuid};

use crate::apply::apply_to_image;
use crate::generators::image_plan::ImagePlan;
use crate::generators::operations::operations;
use crate::generators::qcow2::Qcow2Case;
use crate::model::Model;
use crate::operation::content;
use crate::size::usize_of;
use crate::sparse::SparseStorage;

/// Clusters of a disk, at most.
const MAX_CLUSTERS: u64 = 24;
/// Bytes of the smallest journal, which is full soon.
const RING_LEN: u64 = 32 << 10;
/// Operations that fill a QED image.
const MAX_OPERATIONS: usize = 8;

/// A virtual disk open for reading, and what it reads as.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) file: Arc<dyn VirtualDisk>,
    pub(crate) model: Model,
    /// The disk right below, if there is one.
    pub(crate) under: Option<Arc<dyn VirtualDisk>>,
}

/// A chain of up to three disks, or none.
pub(crate) fn chain(from: &mut Unstructured<'_>) -> Result<Option<Disk>> {
    let mut top = None;
    for _ in 0..from.int_in_range(0..=3)? {
        top = Some(disk(from, top)?);
    }
    Ok(top)
}

/// A disk of any format over `under`; a raw one has nothing under it.
pub(crate) fn disk(from: &mut Unstructured<'_>, under: Option<Disk>) -> Result<Disk> {
    match from.int_in_range(0..=2)? {
        0 => raw(from),
        1 => qed(from, under),
        _ => qcow2(from, under),
    }
}

fn raw(from: &mut Unstructured<'_>) -> Result<Disk> {
    let len = from.int_in_range(0..=100_000)?;
    let storage = SparseStorage::of_len(len);
    for _ in 0..from.int_in_range(0..=4)? {
        let start = from.int_in_range(0..=len)?;
        let end = from.int_in_range(start..=len)?.min(start + 20_000);
        let bytes = content(from.arbitrary()?, start..end);
        storage.write_at(&bytes, start).expect("inside the disk");
    }
    let model = Model::of(storage.content().bytes(0..len.next_multiple_of(512)));
    let file = RawFile::open(Arc::new(storage)).expect("memory has a length");
    Ok(Disk { file: Arc::new(file), model, under: None })
}

fn qed(from: &mut Unstructured<'_>, under: Option<Disk>) -> Result<Disk> {
    let (plan, layout) = (plan(from)?, layout(from)?);
    let storage = Arc::new(SparseStorage::of_len(0));
    let (gate, mut model) = new_image(&*storage, &plan, layout, under.as_ref());
    let list = operations(from, &plan, MAX_OPERATIONS)?;
    apply_to_image(Arc::<SparseStorage>::clone(&storage), &gate, &list, &mut model)
        .expect("a sound image can be written");
    let context = ReadContext::new(&gate, LockPolicy::None);
    let file = ReadOnlyImage::open(storage, &context).expect("a sound image opens");
    Ok(Disk { file: Arc::new(file), model, under: gate.0 })
}

fn qcow2(from: &mut Unstructured<'_>, under: Option<Disk>) -> Result<Disk> {
    let case = Qcow2Case::sound(from, under.as_ref().map(|under| &under.model))?;
    let gate = GivenBacking(under.map(|under| under.file));
    let options = Qcow2Options::new(&gate, LockPolicy::None);
    let file = Qcow2Image::open(Arc::new(case.storage), &options).expect("a sound image opens");
    Ok(Disk { file: Arc::new(file), model: case.model, under: gate.0 })
}

/// A small image: few clusters, most of them small.
pub(crate) fn plan(from: &mut Unstructured<'_>) -> Result<ImagePlan> {
    let bits = *from.choose(&[12, 12, 12, 13, 16])?;
    let geometry = Geometry::new(1 << bits, 1 << from.int_in_range(0..=2)?);
    let geometry = geometry.expect("every pair is legal");
    let sectors = geometry.cluster_size_bytes() / 512;
    let clusters = from.int_in_range(0..=MAX_CLUSTERS - 1)?;
    let image_size = 512 * (clusters * sectors + from.int_in_range(1..=sectors)?);
    Ok(ImagePlan { geometry, image_size, backing_size: None })
}

/// What the header area of a new image holds.
pub(crate) fn layout(from: &mut Unstructured<'_>) -> Result<Layout> {
    let identity = Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(7) };
    Ok(match from.int_in_range(0..=2)? {
        0 => Layout::Classic,
        1 => Layout::Compat(identity),
        _ => Layout::Journal { identity, ring_len_bytes: RING_LEN },
    })
}

/// Makes an empty image in `storage` over `under`: the gate that opens it, and what it reads as.
pub(crate) fn new_image(
    storage: &dyn Storage,
    plan: &ImagePlan,
    layout: Layout,
    under: Option<&Disk>,
) -> (GivenBacking, Model) {
    let name = |_| CreateBacking { name: b"backing".to_vec(), format: BackingFormat::Unstated };
    let options = CreateOptions {
        geometry: plan.geometry,
        image_size: plan.image_size,
        backing: under.map(name),
        layout,
    };
    create(storage, &options).expect("the options are legal");
    let model = match under {
        Some(under) => Model::over(&under.model, plan.image_size),
        None => Model::new(plan.image_size),
    };
    debug_assert_eq!(usize_of(plan.image_size), model.bytes().len());
    (GivenBacking(under.map(|under| Arc::clone(&under.file))), model)
}
