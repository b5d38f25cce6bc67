//! Near-valid images and QEMU: it opens, checks and reads them alike.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};

use crate::branches::Branches;
use crate::generators::image::ImageCase;
use crate::oracles::qemu::assert_agrees;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    assert_agrees(&Arc::new(ImageCase::near_valid(from)?.storage), branches);
    Ok(())
}
