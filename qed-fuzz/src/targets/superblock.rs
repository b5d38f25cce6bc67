//! The two copies of the superblock, and the anchor.

use arbitrary::{Result, Unstructured};

use crate::branches::Branches;
use crate::generators::superblock::{SuperblockCase, anchor};
use crate::oracles::superblock::{assert_anchor, assert_chosen_by_the_rules};

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let case = SuperblockCase::any(from)?;
    assert_chosen_by_the_rules(&case, branches);
    assert_anchor(&anchor(from, case.name)?, case.name, branches);
    Ok(())
}
