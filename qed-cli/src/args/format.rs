//! Image formats by name.

use std::ffi::OsStr;

use anyhow::bail;

use crate::failure::{shown, unsupported};

/// A format the program handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Raw,
    Qed,
    Qcow2,
}

impl Format {
    /// The name that `-f` takes and `info` shows.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qed => "qed",
            Self::Qcow2 => "qcow2",
        }
    }

    /// The format with this name, if there is one.
    pub(crate) fn by_name(name: &OsStr) -> Option<Self> {
        [Self::Raw, Self::Qed, Self::Qcow2].into_iter().find(|format| name == format.name())
    }

    /// The format of an image to read or change.
    pub(crate) fn parse_driver(name: &OsStr) -> anyhow::Result<Self> {
        Self::by_name(name).map_or_else(|| bail!("Unknown driver '{}'", shown(name)), Ok)
    }

    /// The format of an image to write.
    pub(crate) fn parse_target(name: &OsStr) -> anyhow::Result<Self> {
        Self::by_name(name).map_or_else(|| bail!("Unknown file format '{}'", shown(name)), Ok)
    }

    /// Refuses to change a QCOW2 image in place.
    pub(crate) fn refuse_qcow2(self, action: &str) -> anyhow::Result<()> {
        match self {
            Self::Qcow2 => Err(unsupported(format_args!("{action} a qcow2 image in place"))),
            Self::Raw | Self::Qed => Ok(()),
        }
    }
}
