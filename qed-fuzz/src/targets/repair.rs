//! Near-valid images repaired and recovered, as files and as block devices.

use qed_core::GivenBacking;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};

use crate::branches::Branches;
use crate::generators::image::ImageCase;
use crate::oracles::repair::{assert_leaks_repaired, assert_recovered, assert_repaired};
use crate::oracles::validity::reference_of;

/// A device has no holes that could be skipped, and whole sectors.
const MAX_DEVICE_LEN: u64 = 4 << 20;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
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
