//! At least a thousand lists, in turns: open, a few operations, close, and the other one's turn;
//! between them the image may get another layout.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use arbitrary::{Result, Unstructured};
use qed_core::{Identity, Layout};
use qed_fuzz::{ImagePlan, Operation, Under, from_seed, operations};
use qed_spec::{Epoch, ImageUuid};

use crate::scene::Scene;

/// Lists in each test; four tests of them pass the thousand.
const LISTS: u64 = 256;

#[test]
fn alone_first_half() {
    alternate(Under::Nothing, 0..LISTS);
}

#[test]
fn alone_second_half() {
    alternate(Under::Nothing, LISTS..2 * LISTS);
}

#[test]
fn over_a_raw_file() {
    alternate(Under::Raw, 2 * LISTS..3 * LISTS);
}

#[test]
fn over_a_qed_image() {
    alternate(Under::Qed, 3 * LISTS..4 * LISTS);
}

/// Runs the list of each seed; a failure names the seed and the turns.
fn alternate(under: Under, seeds: Range<u64>) {
    for seed in seeds {
        let mut turns = Vec::new();
        let run = || from_seed(seed, |from| one_list(from, under, &mut turns));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            eprintln!("seed {seed}: {turns:#x?}");
            resume_unwind(panic);
        }
    }
}

/// Who did what.
#[derive(Debug)]
#[expect(dead_code, reason = "printed when a list fails")]
enum Turn {
    Ours(Vec<Operation>),
    Qemus(Vec<Operation>),
    Amend(Layout),
}

const IDENTITY: Identity = Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) };

const LAYOUTS: [Layout; 4] = [
    Layout::Classic,
    Layout::Compat(IDENTITY),
    Layout::Journal { identity: IDENTITY, ring_len_bytes: 32 << 10 },
    Layout::Journal { identity: IDENTITY, ring_len_bytes: 160 << 10 },
];

fn one_list(from: &mut Unstructured<'_>, under: Under, turns: &mut Vec<Turn>) -> Result<()> {
    let plan = ImagePlan::over(from, under)?;
    let mut scene = Scene::new(from, plan.clone(), under);
    let mut is_ours = from.arbitrary()?;
    for _ in 0..3 {
        let list = operations_from(from, &scene)?;
        if is_ours {
            turns.push(Turn::Ours(list.clone()));
            scene.ours(&list);
        } else {
            let list = qemus_share(list, &scene);
            turns.push(Turn::Qemus(list.clone()));
            scene.qemus(&list);
        }
        is_ours = !is_ours;
        if from.ratio(1, 3)? {
            let layout = *from.choose(&LAYOUTS)?;
            turns.push(Turn::Amend(layout));
            scene.amend(layout);
        }
    }
    scene.assert_agreed();
    Ok(())
}

/// Up to eight operations on the disk as it is now.
fn operations_from(from: &mut Unstructured<'_>, scene: &Scene) -> Result<Vec<Operation>> {
    let now = ImagePlan { image_size: scene.model.size(), ..scene.plan.clone() };
    let count = from.int_in_range(1..=8)?;
    operations(from, &now, count)
}

/// What QEMU does of a list; ranges beyond a size that it could not set are left out.
fn qemus_share(list: Vec<Operation>, scene: &Scene) -> Vec<Operation> {
    let mut size = scene.model.size();
    let mut share = Vec::new();
    for operation in list {
        let fits = operation.range().is_none_or(|range| range.end <= size);
        let Some(operation) = fits.then(|| for_qemu(operation, &scene.plan, size)).flatten() else {
            continue;
        };
        if let Operation::Resize { size: new } = operation {
            size = new;
        }
        share.push(operation);
    }
    // Without a command it would ask for some.
    share.push(Operation::Flush);
    share
}

/// The operation as QEMU can do it on a disk of `size` bytes; none if it cannot.
fn for_qemu(operation: Operation, plan: &ImagePlan, size: u64) -> Option<Operation> {
    match operation {
        Operation::Write { range, fill } => {
            Some(Operation::Write { range: whole_clusters(range, plan, size), fill })
        }
        Operation::WriteZeroes { range } => {
            Some(Operation::WriteZeroes { range: whole_clusters(range, plan, size) })
        }
        Operation::Unmap { range } => {
            Some(Operation::Unmap { range: whole_clusters(range, plan, size) })
        }
        Operation::Resize { size: new } => {
            // It cannot shrink a disk, nor grow an overlay over a longer backing file: QED-QEMU-12.
            let hides_backing = plan.backing_size.is_some_and(|backing| backing > size);
            (new > size && !hides_backing).then_some(operation)
        }
        Operation::Read { .. } | Operation::Flush => Some(operation),
    }
}

/// With a backing file QEMU fills the rest of a zero cluster from it, wrongly: QED-QEMU-11. So it
/// writes whole clusters there.
fn whole_clusters(range: Range<u64>, plan: &ImagePlan, size: u64) -> Range<u64> {
    if plan.backing_size.is_none() {
        return range;
    }
    let cluster = plan.geometry.cluster_size_bytes();
    range.start - range.start % cluster..range.end.next_multiple_of(cluster).min(size)
}
