//! Images in journal mode and in compat mode: ring, blocks, records, commits and marks, each bound
//! from both sides, and what a crash leaves of a log.

mod active;
mod block;
mod chain;
mod log;
mod marks;
mod record;
mod ring;
mod scene;

use super::vector::Family;

pub(super) fn families() -> Vec<Family> {
    let all = [ring::families(), active::families(), log::families(), chain::families()];
    let more = [block::families(), record::families(), marks::families()];
    all.into_iter().chain(more).flatten().collect()
}
