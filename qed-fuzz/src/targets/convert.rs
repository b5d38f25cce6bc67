//! Conversions of sound disks from every format to every format: the target reads as the source, is
//! in order, and is no larger than was measured.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_check::{CheckOptions, check};
use qed_convert::compare::{CompareOptions, Comparison, compare};
use qed_convert::measure::{MeasureTarget, measure};
use qed_convert::qcow2::{Qcow2CreateOptions, Qcow2Image, Qcow2Options};
use qed_convert::{ConvertOptions, NoProgress, Target, TargetContent, convert};
use qed_core::{
    GivenBacking, Image, Layout, LockPolicy, ReadContext, ReadOnlyImage, RecoveryPolicy,
    VirtualDisk, WriteContext,
};
use qed_io::Storage;
use qed_spec::Geometry;

use crate::branches::Branches;
use crate::generators::conversion::{To, options, target};
use crate::generators::disk::{Disk, chain, new_image};
use crate::generators::image_plan::ImagePlan;
use crate::oracles::assert_reads_as;
use crate::sparse::SparseStorage;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let Some(source) = chain(from)? else { return Ok(()) };
    let to = target(from, source.under.as_ref())?;
    let options = options(from)?;
    branches.note("to", &to);
    let storage = Arc::new(SparseStorage::of_len(0));
    let storage: Arc<dyn Storage> = storage;
    match to {
        To::Raw => {
            run_to(&source, Target::Raw(Arc::clone(&storage)), &options);
            assert_raw(&source, &*storage, 0);
        }
        To::RawImage { more } => to_raw_image(&source, &storage, more, &options),
        To::Stream => {
            let mut bytes = Vec::new();
            run_to(&source, Target::Stream(Box::new(&mut bytes)), &options);
            assert!(bytes == source.model.bytes(), "other bytes in the stream");
        }
        To::Qed { geometry, layout, backing } => {
            let measured = MeasureTarget::Qed { geometry, layout };
            let gate = GivenBacking(backing.as_ref().and(source.under.clone()));
            let into = Target::Qed { storage: Arc::clone(&storage), geometry, layout, backing };
            run_to(&source, into, &options);
            if gate.0.is_none() && options.sparse_len > 0 {
                assert_within_measure(&source, &*storage, &measured);
            }
            assert_qed(&source, storage, &gate);
        }
        To::Qcow2 { options: new, compress } => {
            let gate = GivenBacking(new.backing.as_ref().and(source.under.clone()));
            to_qcow2(&source, &storage, &new, compress, &options, &gate);
        }
        To::QedImage { more } => to_qed_image(&source, &storage, more, &options),
    }
    Ok(())
}

fn run_to(source: &Disk, target: Target<'_>, options: &ConvertOptions) {
    let summary = convert(&*source.file, target, options, &NoProgress);
    let summary = summary.expect("memory takes every write");
    let lens = (summary.virtual_size, summary.unreadable_len);
    assert_eq!(lens, (source.file.len(), 0), "{summary:?}");
}

fn assert_raw(source: &Disk, storage: &dyn Storage, more: u64) {
    let len = source.file.len();
    assert_eq!(storage.len().expect("memory has a length"), len + more);
    let mut bytes = vec![0; source.model.bytes().len()];
    storage.read_at(&mut bytes, 0).expect("inside the file");
    assert!(bytes == source.model.bytes(), "other bytes in the raw file");
}

fn to_raw_image(source: &Disk, storage: &Arc<dyn Storage>, more: u64, options: &ConvertOptions) {
    let len = source.model.bytes().len();
    storage.write_at(&vec![0xee; len], 0).expect("a small file");
    storage.set_len(source.file.len() + more).expect("a small file");
    let content = TargetContent::Unknown;
    run_to(source, Target::RawImage { storage: Arc::clone(storage), content }, options);
    assert_raw(source, &**storage, more);
}

fn to_qcow2(
    source: &Disk,
    storage: &Arc<dyn Storage>,
    new: &Qcow2CreateOptions,
    compress: bool,
    options: &ConvertOptions,
    gate: &GivenBacking,
) {
    let into = Target::Qcow2 { storage: Arc::clone(storage), options: new.clone(), compress };
    run_to(source, into, options);
    if gate.0.is_none() && options.sparse_len > 0 {
        assert_within_measure(source, &**storage, &MeasureTarget::Qcow2(new.clone()));
    }
    let opened = Qcow2Image::open(Arc::clone(storage), &Qcow2Options::new(gate, LockPolicy::Take));
    assert_same(source, &opened.expect("what was just written opens"));
}

fn to_qed_image(source: &Disk, storage: &Arc<dyn Storage>, more: u64, options: &ConvertOptions) {
    let geometry = Geometry::new(4096, 1).expect("a legal shape");
    let image_size = source.file.len() + more;
    let plan = ImagePlan { geometry, image_size, backing_size: None };
    let (gate, _) = new_image(&**storage, &plan, Layout::Classic, None);
    let context = WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Refuse);
    let image = Image::open(Arc::clone(storage), &context).expect("a sound image opens");
    let old = vec![0xee; crate::size::usize_of(image_size)];
    image.write_at(&old, qed_spec::GuestOffset::new(0)).expect("inside the disk");
    let content = TargetContent::Unknown;
    run_to(source, Target::QedImage { image: &image, content }, options);
    let mut expected = source.model.bytes().to_vec();
    expected.resize(old.len(), 0xee);
    let mut found = old;
    image.read_at(&mut found, qed_spec::GuestOffset::new(0)).expect("inside the disk");
    assert!(found == expected, "other bytes in the image");
    image.close().expect("memory takes every write");
}

fn assert_qed(source: &Disk, storage: Arc<dyn Storage>, gate: &GivenBacking) {
    let report = check(&*storage, &CheckOptions::default()).expect("small enough");
    assert!(report.is_clean() && !report.dirty, "{:?}", report.findings);
    let opened = ReadOnlyImage::open(storage, &ReadContext::new(gate, LockPolicy::Take));
    assert_same(source, &opened.expect("what was just written opens"));
}

fn assert_same(source: &Disk, target: &dyn VirtualDisk) {
    assert_reads_as(target, &source.model);
    let compared = compare(&*source.file, target, &one_thread(), &NoProgress);
    assert_eq!(compared.expect("both can be read"), Comparison::Identical);
}

fn assert_within_measure(source: &Disk, storage: &dyn Storage, target: &MeasureTarget) {
    let target = match target {
        MeasureTarget::Qcow2(options) => {
            MeasureTarget::Qcow2(Qcow2CreateOptions { size: source.file.len(), ..options.clone() })
        }
        other => other.clone(),
    };
    let measured = measure(&*source.file, &target).expect("the options made an image");
    let len = storage.len().expect("memory has a length");
    assert!(len <= measured.required, "{len} bytes, {measured:?}");
    assert!(measured.required <= measured.fully_allocated, "{measured:?}");
}

fn one_thread() -> CompareOptions {
    CompareOptions { threads: std::num::NonZeroUsize::MIN, ..CompareOptions::default() }
}
