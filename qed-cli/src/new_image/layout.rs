//! The options that say what a QED image holds besides its tables: `classic` and `journal`.

use anyhow::{Context, bail};
use qed_core::Identity;
use qed_spec::{JOURNAL_BLOCK_LEN_BYTES, JournalRing};

use crate::args::{OptionValues, parse_size};

/// What the two options ask for; none where one was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayoutOptions {
    pub(crate) classic: Option<bool>,
    pub(crate) journal: Option<JournalOption>,
}

/// A journal, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JournalOption {
    Off,
    On {
        /// Bytes of its ring, where they were stated.
        len: Option<u64>,
    },
}

impl LayoutOptions {
    /// Reads both.
    pub(crate) fn of(options: &OptionValues) -> anyhow::Result<Self> {
        let classic = options.given("classic").map(|_| options.is_on("classic"));
        let journal =
            options.text("journal").map(|text| JournalOption::parse(&text)).transpose()?;
        if classic == Some(true) && matches!(journal, Some(JournalOption::On { .. })) {
            bail!("A classic image has no journal: classic=on and journal cannot be used together");
        }
        Ok(Self { classic, journal })
    }
}

impl JournalOption {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let range = JournalRing::MIN_LEN_BYTES..=JournalRing::MAX_LEN_BYTES;
        let block = JOURNAL_BLOCK_LEN_BYTES as u64;
        match (text, parse_size(text)) {
            ("off", _) => Ok(Self::Off),
            ("on", _) => Ok(Self::On { len: None }),
            (_, Ok(len)) if range.contains(&len) && len.is_multiple_of(block) => {
                Ok(Self::On { len: Some(len) })
            }
            _ => bail!("Journal must be 'on', 'off' or a size of 32K to 1G in steps of 4K"),
        }
    }
}

/// What tells an image from all others.
pub(crate) fn random_identity() -> anyhow::Result<Identity> {
    qed::random_identity().context("Could not get random numbers")
}
