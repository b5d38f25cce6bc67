//! `--output=human|json`.

use std::ffi::OsStr;

use crate::failure::{shown, usage};

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    Human,
    Json,
}

impl OutputFormat {
    /// The value of `--output`; human where there is none.
    pub(crate) fn parse(value: Option<&OsStr>) -> anyhow::Result<Self> {
        match value.map(OsStr::as_encoded_bytes) {
            None | Some(b"human") => Ok(Self::Human),
            Some(b"json") => Ok(Self::Json),
            Some(_) => {
                let value = shown(value.unwrap_or_default());
                Err(usage(format!("--output expects 'human' or 'json' not '{value}'")))
            }
        }
    }
}
