//! Options and subcommands of `qemu-img` and of later work: refused by name, never ignored.

use std::ffi::{OsStr, OsString};

use clap::Args;

use crate::failure::unsupported;

/// Options that every subcommand knows in order to refuse them.
#[derive(Debug, Default, Args)]
pub(crate) struct Refused {
    #[arg(long, hide = true, value_name = "OBJDEF")]
    object: Vec<OsString>,
}

impl Refused {
    /// Fails if one of them was given.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if !self.object.is_empty() {
            return Err(unsupported("the option '--object'"));
        }
        Ok(())
    }
}

const LATER_SUBCOMMANDS: [&str; 4] = ["bitmap", "compact", "mount", "vhost"];

/// Fails if `name` is a subcommand of later work.
pub(crate) fn refuse_later_subcommand(name: &OsStr) -> anyhow::Result<()> {
    match LATER_SUBCOMMANDS.iter().find(|later| name == **later) {
        Some(later) => Err(unsupported(format_args!("the subcommand '{later}'"))),
        None => Ok(()),
    }
}
