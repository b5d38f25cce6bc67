//! Every state that a crash may leave of a QCOW2 header that gets another backing file: it names the
//! old one in its old format, or the new one in its new format, and has all other extensions.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod header;

use std::sync::Arc;

use qed_convert::qcow2::{Qcow2Backing, Qcow2Header, SetQcow2BackingError, set_qcow2_backing};
use qed_fuzz::{
    CrashState, SparseContent, Subject, disk_of, each_state, flushes, recorded, told, without_flush,
};
use qed_io::{Operation, Record, Storage};

use crate::header::{Case, OTHERS, cases, extensions_of};

/// Up to this many states of one crash point are all built, of more a sample.
const MOST: u64 = 64;

type Pair = Option<(Vec<u8>, Option<Vec<u8>>)>;

/// The backing file that an image names; a format without a name means nothing.
fn pair_of(state: &SparseContent) -> Result<Pair, String> {
    let header = Qcow2Header::read(&*disk_of(state)).map_err(|error| format!("{error:?}"))?;
    let format = header.backing_format().map(<[u8]>::to_vec);
    Ok(header.backing_name().map(|name| (name.as_bytes().to_vec(), format)))
}

impl Case {
    fn set_on(&self, storage: &dyn Storage) -> Result<(), SetQcow2BackingError> {
        let backing = self.new.as_ref().map(|(name, format)| Qcow2Backing { name, format });
        set_qcow2_backing(storage, backing)
    }

    /// What setting the backing file does, unless there is no room.
    fn written(&self) -> Option<Vec<Record>> {
        let mut is_refused = false;
        let set = recorded(&self.make(), |storage| {
            self.set_on(&*storage).or_else(|error| match error {
                SetQcow2BackingError::NoRoom => {
                    is_refused = true;
                    Ok(())
                }
                other => Err(format!("{self:?}: {other:?}")),
            })
        });
        let (_, run) = set.unwrap_or_else(|problem| panic!("{problem}"));
        (!is_refused).then_some(run)
    }
}

impl Subject for Case {
    type Kind = ();

    fn make(&self) -> SparseContent {
        self.start()
    }

    fn run(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        self.set_on(&*storage).map_err(told("setting"))
    }

    fn recover(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        self.run(storage)
    }

    fn judge(&self, state: &CrashState) -> Result<(), String> {
        let start = self.make();
        let new = self.new.as_ref().map(|(name, format)| (name.clone(), Some(format.clone())));
        let found = pair_of(&state.content)?;
        if found != new && (state.is_over || found != pair_of(&start)?) {
            return Err(format!("names {found:?}"));
        }
        let [was, is] =
            [&start, &state.content].map(|content| extensions_of(&content.to_vec(), OTHERS));
        if was == is { Ok(()) } else { Err("another extension changed".to_owned()) }
    }
}

/// Judges every state of a run; how many there were.
fn judge(case: &Case, run: &[Record]) -> Result<u64, String> {
    let mut states = 0;
    each_state(case, run, MOST, &mut |state| {
        states += 1;
        case.judge(&state)
    })?;
    Ok(states)
}

#[test]
fn every_state_names_the_old_file_or_the_new_one() {
    let (mut states, mut runs, mut refused) = (0, 0, 0);
    for case in cases() {
        match case.written() {
            Some(run) => {
                let judged = judge(&case, &run);
                states += judged.unwrap_or_else(|error| panic!("{case:?}: {error}"));
                runs += 1;
            }
            None => {
                assert!(case.may_lack_room(), "{case:?}: refused");
                refused += 1;
            }
        }
    }
    println!("{states} states of {runs} runs, {refused} refused");
    assert!(runs >= 1_000 && states >= 8_000, "{states} states of {runs} runs");
}

/// The first flush is the one before the sector that names what was written.
#[test]
fn a_name_that_is_not_durable_is_found() {
    let is_found = |case: &Case| {
        let Some(run) = case.written() else { return false };
        let names_come_first = run[..flushes(&run)[0]]
            .iter()
            .any(|it| matches!(&it.operation, Operation::Write { offset, .. } if *offset >= 512));
        names_come_first && judge(case, &without_flush(&run, 0)).is_err()
    };
    let found = cases().iter().filter(|case| is_found(case)).count();
    assert!(found >= 100, "only {found} runs miss their first flush");
}
