//! Image formats by the names that `-f` and `-O` take.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::bail;

pub(crate) use qed_convert::chain::ImageFormat as Format;

use crate::failure::{shown, unsupported};

/// The format of an image to read or change.
pub(crate) fn parse_driver(name: &OsStr) -> anyhow::Result<Format> {
    by_name(name).map_or_else(|| bail!("Unknown driver '{}'", shown(name)), Ok)
}

/// The format of an image to write.
pub(crate) fn parse_target(name: &OsStr) -> anyhow::Result<Format> {
    by_name(name).map_or_else(|| bail!("Unknown file format '{}'", shown(name)), Ok)
}

/// The format with this name, if there is one.
pub(crate) fn by_name(name: &OsStr) -> Option<Format> {
    Format::from_name(name.as_bytes())
}

/// Refuses to change a QCOW2 image in place.
pub(crate) fn refuse_qcow2(format: Format, action: &str) -> anyhow::Result<()> {
    match format {
        Format::Qcow2 => Err(unsupported(format_args!("{action} a qcow2 image in place"))),
        Format::Raw | Format::Qed => Ok(()),
    }
}
