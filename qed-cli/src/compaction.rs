//! Compacting an image: its steps with their progress, and what is said of what came of them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use qed_convert::Progress as _;
use qed_core::{CompactOptions, CompactStep, Compacted, Image, ImageError, LockPolicy, lower_l1};
use qed_spec::Geometry;
use serde_json::{Value, json};

use crate::output::human_size;
use crate::work::Work;

/// What a compaction did, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    end_before: u64,
    end: u64,
    moved: u64,
    /// Data that requests were writing to.
    busy: u64,
    /// Tables without room below them.
    tables: u64,
}

/// Why there is no outcome. What was moved is moved, and the image is whole.
#[derive(Debug)]
enum NotCompacted {
    Image(ImageError),
    Stopped,
}

impl fmt::Display for NotCompacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Stopped => f.write_str("it was stopped"),
        }
    }
}

impl Error for NotCompacted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Image(error) => error.source(),
            Self::Stopped => None,
        }
    }
}

impl From<ImageError> for NotCompacted {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// Compacts an image that nobody else uses, and closes it; a signal stops it between two steps. `reopen`
/// opens it again where the L1 table, which no open image moves, came down as well.
pub(crate) fn compact_and_close(
    image: Image,
    reopen: impl FnOnce() -> anyhow::Result<Image>,
    options: CompactOptions,
    work: Work<'_>,
) -> anyhow::Result<Outcome> {
    let storage = Arc::clone(image.storage());
    let compacted = compact(image, options, &work);
    let is_lower = compacted.is_ok() && lower_l1(&storage, LockPolicy::None, qed::RECOVER)?;
    if !is_lower {
        return work.finish(compacted);
    }
    let again = compact(reopen()?, CompactOptions::default(), &work);
    work.finish(compacted.and_then(|first| again.map(|then| first.then(then))))
}

/// As it is, closed afterwards.
fn compact(
    image: Image,
    options: CompactOptions,
    work: &Work<'_>,
) -> Result<Outcome, NotCompacted> {
    let compacted = take_steps(&image, options, work);
    let closed = image.close().map_err(NotCompacted::from);
    compacted.and_then(|outcome| closed.map(|()| outcome))
}

fn take_steps(
    image: &Image,
    options: CompactOptions,
    work: &Work<'_>,
) -> Result<Outcome, NotCompacted> {
    let mut compaction = image.compact(options);
    loop {
        if work.is_cancelled() {
            return Err(NotCompacted::Stopped);
        }
        match compaction.step()? {
            CompactStep::GoesOn { to_move_bytes: 0, .. } => {}
            CompactStep::GoesOn { moved_bytes, to_move_bytes } => {
                work.advanced(moved_bytes, to_move_bytes);
            }
            CompactStep::Done(done) => return Ok(Outcome::of(done, image.geometry())),
        }
    }
}

impl Outcome {
    fn of(done: Compacted, geometry: Geometry) -> Self {
        Self {
            end_before: done.end_before,
            end: done.end_after,
            moved: done.moved_bytes,
            busy: done.held_back.busy_clusters * geometry.cluster_size_bytes(),
            tables: done.held_back.tables * geometry.table_size_bytes(),
        }
    }

    /// Both, one after the other.
    fn then(self, next: Self) -> Self {
        let moved = self.moved + next.moved;
        Self { end_before: self.end_before, moved, ..next }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let Self { end_before, end, moved, busy, tables } = *self;
        let [given_back, before, now, moved] =
            [end_before.saturating_sub(end), end_before, end, moved].map(human_size);
        let mut text = format!(
            "Image compacted: {given_back} given back, {moved} moved; it ended at {before}, now at \
             {now}.\n"
        );
        let held = [(busy, "that were being written"), (tables, "of tables without room below")];
        for (bytes, why) in held.into_iter().filter(|(bytes, _)| *bytes > 0) {
            text += &format!("Held back: {} {why}.\n", human_size(bytes));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let Self { end_before, end, moved, busy, tables } = self;
        json!({
            "end-before": end_before,
            "end": end,
            "moved": moved,
            "held-back": { "busy": busy, "tables": tables },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_it_is_said() {
        let outcome =
            Outcome { end_before: 3 << 20, end: 1 << 20, moved: 65536, busy: 0, tables: 0 };
        let said =
            "Image compacted: 2 MiB given back, 64 KiB moved; it ended at 3 MiB, now at 1 MiB.\n";
        assert_eq!(outcome.text(), said);
        let held = Outcome { busy: 4096, tables: 8192, ..outcome };
        let why = "Held back: 4 KiB that were being written.\n\
                   Held back: 8 KiB of tables without room below.\n";
        assert_eq!(held.text(), [said, why].concat());
        // Defragmenting may leave an image longer than it was.
        let longer = Outcome { end: 4 << 20, ..outcome };
        assert!(longer.text().contains("0 B given back"), "{}", longer.text());
    }
}
