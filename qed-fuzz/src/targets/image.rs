//! Near-valid images: check, reader and writer agree.

use qed_core::GivenBacking;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};

use crate::branches::Branches;
use crate::generators::image::ImageCase;
use crate::oracles::validity::{assert_checked, assert_opened, reference_of};

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let storage = Arc::new(ImageCase::near_valid(from)?.storage);
    let gate = GivenBacking(None);
    let Some(reference) = reference_of(&storage, &gate) else { return Ok(()) };
    let report = assert_checked(&*storage, &reference, branches);
    assert_opened(&storage, &gate, &reference, &report, branches);
    Ok(())
}
