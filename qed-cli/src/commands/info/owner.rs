//! What `info` tells of the owner of a QED image: who has it open for writing, or had it to the end.

use std::num::NonZeroU64;

use qed_spec::ImageOwner;
use serde_json::{Value, json};

use crate::output::{date, text};

/// The line for people.
pub(super) fn line(owner: &ImageOwner) -> String {
    let (host, since) = (owner.host_name().escape_ascii(), date(owner.since()));
    format!("owner: host {host}, since {since}, token {:#x}", token(owner))
}

/// The members for programs.
pub(super) fn json(owner: &ImageOwner) -> Value {
    json!({
        "owner-token": token(owner),
        "owner-since": owner.since(),
        "owner-host": text(owner.host_name()),
    })
}

fn token(owner: &ImageOwner) -> u64 {
    owner.token().map_or(0, NonZeroU64::get)
}
