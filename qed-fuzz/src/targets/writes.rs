//! Guests that write to near-valid images: whatever the tables say, nothing that the guest does
//! reaches metadata or another guest cluster.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_check::recovery_hook;
use qed_core::{
    DiscardMode, GivenBacking, Image, ImageError, LockPolicy, RecoveryPolicy, WriteContext,
};

use crate::apply::apply;
use crate::branches::Branches;
use crate::generators::image::ImageCase;
use crate::generators::number::number;
use crate::operation::Operation;
use crate::oracles::confinement::Before;
use crate::oracles::validity::reference_of;
use crate::sparse::SparseStorage;

/// Larger clusters make no other mistakes and cost time.
const MAX_CLUSTER: u64 = 1 << 16;
const MAX_OPERATIONS: u8 = 12;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let storage = Arc::new(ImageCase::near_valid(from)?.storage);
    let gate = GivenBacking(None);
    let context = WriteContext {
        cache_limit_bytes: 0,
        discard: *from.choose(&[DiscardMode::Reuse, DiscardMode::PassDown])?,
        ..WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook))
    };
    let opened = Image::open(Arc::<SparseStorage>::clone(&storage), &context);
    branches.note("open", opened.as_ref().map(drop));
    let Ok(image) = opened else { return Ok(()) };
    let Some(reference) = reference_of(&storage, &gate) else { return Ok(()) };
    if reference.cluster > MAX_CLUSTER || reference.image_size == 0 {
        return Ok(());
    }
    let mut before = Before::new(&*storage, &reference);
    for _ in 0..from.int_in_range(1..=MAX_OPERATIONS)? {
        let operation = operation(from, &before)?;
        let done = apply(&image, &operation);
        branches.note("operation", done.as_ref().map(drop).map_err(drop));
        before.note(&operation, done.is_ok());
        if from.ratio(1, 4)? {
            sweep(&image, &before, branches);
        }
    }
    image.close().expect("memory takes every write");
    before.assert_confined(&storage, &gate);
    Ok(())
}

/// A sweep says no to each image in which a check finds a corruption, or nothing of it: space is used
/// again in no other.
fn sweep(image: &Image, before: &Before<'_>, branches: &mut Branches) {
    let swept = image.sweep();
    branches.note("sweep", swept.as_ref().map_err(drop));
    match swept {
        Ok(true) => assert!(before.may_be_swept(), "a sweep finds nothing wrong"),
        Ok(false) | Err(ImageError::Corrupt(_)) => {}
        Err(error) => panic!("{error:?}"),
    }
}

/// An operation where the tables have something, or beside it.
fn operation(from: &mut Unstructured<'_>, before: &Before<'_>) -> Result<Operation> {
    let start = number(from, &before.edges())? % before.image_size();
    let len = match from.int_in_range(0..=3)? {
        0 => from.int_in_range(1..=4096)?,
        1 => before.cluster() * from.int_in_range(1..=4)?,
        _ => 512 * from.int_in_range(1..=32)?,
    };
    let range = start..start.saturating_add(len).min(before.image_size());
    Ok(match from.int_in_range(0..=7)? {
        0 => Operation::Flush,
        1 => Operation::Read { range },
        2 => Operation::WriteZeroes { range },
        3 => Operation::Unmap { range },
        _ => Operation::Write { range, fill: from.arbitrary()? },
    })
}
