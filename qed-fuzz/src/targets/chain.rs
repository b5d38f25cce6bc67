//! Folders of image files that name each other: who is opened, and what the disk then reads as.

use arbitrary::{Result, Unstructured};
use qed_convert::chain::{ChainOptions, FormatSource, ImageFormat, TrustMagic};

use crate::branches::Branches;
use crate::generators::chain_files::ChainFiles;
use crate::oracles::chain::assert_walked;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let formats = [ImageFormat::Raw, ImageFormat::Qed, ImageFormat::Qcow2];
    let mut options = ChainOptions::default();
    let trust = from.int_in_range(0..=3_u8)?;
    for _ in 0..from.int_in_range(0..=4_u8)?.saturating_sub(2) {
        options.backing_formats.push(*from.choose(&formats)?);
    }
    let (is_confined, is_stated) = (from.arbitrary()?, from.ratio(3, 4)?);
    let files = ChainFiles::any(from)?;
    options.trust_magic = match trust {
        0 => TrustMagic::Never,
        1 => TrustMagic::Always,
        2 => TrustMagic::Near(Vec::new()),
        _ => TrustMagic::Near(vec![files.folder()]),
    };
    if is_confined {
        options.confine_to = Some(files.folder());
    }
    let top = match is_stated {
        true => FormatSource::Stated(files.files[0].format),
        false => FormatSource::Magic,
    };
    assert_walked(&files, top, &options, branches);
    Ok(())
}
