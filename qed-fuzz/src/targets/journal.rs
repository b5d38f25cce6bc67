//! Images that a crash left in journal mode: what a reader is shown, what a replay writes, what a
//! replay that fails leaves, and what a guest finds when it goes on are one.

use std::sync::Arc;

use arbitrary::Unstructured;
use qed_core::{OpenError, ShownReplay, replay_journal, show_replayed};
use qed_io::{Fault, Faulty, Repeat, Storage};
use qed_journal::RecoveryError;
use qed_spec::{Features, Header};

use crate::branches::Branches;
use crate::generators::image::journal::JournalCase;
use crate::oracles::journal::log_of;
use crate::oracles::replay::{Image, assert_as_the_log_says, assert_checked_alike, assert_goes_on};
use crate::sparse::SparseStorage;

/// Requests of a replay, of which any may be the one that fails.
const MAX_REQUESTS: u64 = 40;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> arbitrary::Result<()> {
    let JournalCase { storage, is_sound } = JournalCase::any(from)?;
    let content = storage.content();
    let first = content.bytes(0..content.len().min(512));
    let known = Features::CLASSIC | Features::JOURNAL_ACTIVE | Features::CONVERSION_HOLD;
    let storage = Arc::new(storage);
    let shown = show_replayed(&as_storage(&storage));
    note_shown(branches, &shown);
    assert!(storage.content() == content, "showing changed the image");
    let Ok(header) = Header::parse(&first, content.len(), known) else {
        assert!(matches!(shown, Err(OpenError::Header(_))), "{:?}", shown.map(drop));
        return Ok(());
    };
    let log =
        header.features().contains(Features::JOURNAL_ACTIVE).then(|| log_of(&header, &content));
    if let (Some(log), true) = (&log, is_sound) {
        assert_eq!(shown.is_ok(), log.is_some(), "{:?} of {log:?}", shown.as_ref().map(drop));
    }
    let replayed = Arc::new(storage.copy());
    let replay = replay_journal(&as_storage(&replayed));
    let Ok(Some(shown)) = shown else {
        assert!(replay.is_err() || shown.is_ok(), "a writer follows what a reader refuses");
        assert!(replayed.content() == content, "a replay that refuses writes nothing");
        return Ok(());
    };
    assert_eq!(replay.expect("what is shown can be written"), Some(shown.waiting));
    branches.note("commits", (shown.waiting.commits > 0).then_some(shown.waiting.blocks > 1));
    let view = Image::of(&*shown.storage);
    if let (Some(Some(log)), true) = (&log, is_sound) {
        assert_as_the_log_says(&view, &Image::of(&*storage), log);
        assert_eq!(shown.waiting.commits, log.commits);
    }
    assert_eq!(Image::of(&*replayed), view, "a replay writes what is shown");
    let settled = replayed.content();
    assert_eq!(replay_journal(&as_storage(&replayed)).expect("it is in order"), None);
    assert!(replayed.content() == settled, "a second replay writes");
    assert_checked_alike(&*shown.storage, &*replayed);
    let request = from.int_in_range(0..=MAX_REQUESTS)?;
    if is_sound && log.flatten().is_some_and(|log| log.is_repeatable) {
        assert_survives(&storage, &view, request, branches);
    }
    if is_sound {
        assert_goes_on(from, &replayed, &storage, branches)?;
    }
    Ok(())
}

/// A replay that fails with any request leaves an image that shows the same, and can be replayed.
fn assert_survives(storage: &SparseStorage, view: &Image, request: u64, branches: &mut Branches) {
    let copy = Arc::new(storage.copy());
    let faulty = Faulty::new(as_storage(&copy));
    faulty.fail_nth(request, Fault::Io, Repeat::Always);
    let interrupted = replay_journal(&(Arc::new(faulty) as Arc<dyn Storage>));
    branches.note("interrupted", interrupted.as_ref().map(drop));
    let again = show_replayed(&as_storage(&copy)).expect("the log is as it was, or in the tables");
    let again = again.map_or_else(|| Image::of(&*copy), |shown| Image::of(&*shown.storage));
    assert_eq!(again, *view, "a replay that failed lost something");
    replay_journal(&as_storage(&copy)).expect("it can be tried again");
    assert_eq!(Image::of(&*copy), *view, "and then it is done");
}

/// What is shown, or the innermost reason why nothing is.
fn note_shown(branches: &mut Branches, shown: &Result<Option<ShownReplay>, OpenError>) {
    match shown {
        Err(OpenError::JournalRecovery(RecoveryError::Corrupt { fault, .. })) => {
            branches.note("fault", fault);
        }
        shown => branches.note("shown", shown.as_ref().map(|shown| shown.as_ref().map(drop))),
    }
}

fn as_storage(storage: &Arc<SparseStorage>) -> Arc<dyn Storage> {
    Arc::<SparseStorage>::clone(storage)
}
