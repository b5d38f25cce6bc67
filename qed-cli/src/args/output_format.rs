//! How an image is reported on: `--output=human|json`, and `-U`.

use std::ffi::{OsStr, OsString};

use clap::Args;

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

/// How a command that only reads reports on an image.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Take no lock: the image may be in use
    #[arg(short = 'U', long)]
    pub(crate) force_share: bool,
    /// human (the default) or json
    #[arg(long, value_name = "OFMT")]
    output: Option<OsString>,
}

impl ReportArgs {
    /// What `--output` says.
    pub(crate) fn format(&self) -> anyhow::Result<OutputFormat> {
        OutputFormat::parse(self.output.as_deref())
    }
}
