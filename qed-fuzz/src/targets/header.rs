//! Headers, and every conversion of their shape.

use arbitrary::{Result, Unstructured};

use crate::branches::Branches;
use crate::generators::header::{HeaderCase, any_geometry};
use crate::generators::number::number;
use crate::oracles::header::{assert_geometry, assert_parsed_by_the_rules};

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let geometry = any_geometry(from)?;
    let landmarks = [geometry.cluster_size_bytes(), geometry.max_image_size_bytes()];
    for _ in 0..3 {
        assert_geometry(geometry, number(from, &landmarks)?);
    }
    assert_parsed_by_the_rules(&HeaderCase::any(from)?, branches);
    Ok(())
}
