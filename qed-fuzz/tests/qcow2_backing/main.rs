//! Every state that a crash may leave of a QCOW2 header that gets another backing file: it names the
//! old one in its old format, or the new one in its new format, and has all other extensions.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod header;

use std::sync::Arc;

use qed_convert::{Qcow2Backing, Qcow2Header, SetQcow2BackingError, set_qcow2_backing};
use qed_fuzz::{CrashDisk, DiskContent, crash_points};
use qed_io::{Operation, Record, Recorder};

use crate::header::{Case, OTHERS, cases, extensions_of};

/// Up to this many states of one crash point are all built, of more a sample.
const MOST: u64 = 64;

type Pair = Option<(Vec<u8>, Option<Vec<u8>>)>;

/// The backing file that an image names; a format without a name means nothing.
fn pair_of(state: &DiskContent) -> Result<Pair, String> {
    let storage = CrashDisk::new(state.clone());
    let header = Qcow2Header::read(&storage).map_err(|error| format!("{error:?}"))?;
    let format = header.backing_format().map(<[u8]>::to_vec);
    Ok(header.backing_name().map(|name| (name.as_bytes().to_vec(), format)))
}

fn run(case: &Case) -> Result<Vec<Record>, SetQcow2BackingError> {
    let recorder = Recorder::new(Arc::new(CrashDisk::new(case.start())));
    let backing = case.new.as_ref().map(|(name, format)| Qcow2Backing { name, format });
    set_qcow2_backing(&recorder, backing)?;
    Ok(recorder.records())
}

/// Judges every state of a run; how many there were.
fn judge(case: &Case, run: &[Record]) -> Result<u64, String> {
    let start = case.start();
    let old = pair_of(&start)?;
    let new = case.new.as_ref().map(|(name, format)| (name.clone(), Some(format.clone())));
    let others = extensions_of(&start.bytes(), OTHERS);
    let points = crash_points(&start, run);
    let mut states = 0;
    for (number, point) in points.iter().enumerate() {
        let is_last = number + 1 == points.len();
        let mut outcome = Ok(());
        point.for_each_state(MOST, |state| {
            states += 1;
            outcome = outcome.clone().and_then(|()| {
                let found = pair_of(&state)?;
                if found != new && (is_last || found != old) {
                    return Err(format!("names {found:?}"));
                }
                match extensions_of(&state.bytes(), OTHERS) == others {
                    true => Ok(()),
                    false => Err("another extension changed".to_owned()),
                }
            });
        });
        outcome.map_err(|error| format!("point {number}: {error}"))?;
    }
    Ok(states)
}

#[test]
fn every_state_names_the_old_file_or_the_new_one() {
    let (mut states, mut runs, mut refused) = (0, 0, 0);
    for case in cases() {
        match run(&case) {
            Ok(run) => {
                let judged = judge(&case, &run);
                states += judged.unwrap_or_else(|error| panic!("{case:?}: {error}"));
                runs += 1;
            }
            Err(SetQcow2BackingError::NoRoom) => {
                assert!(case.may_lack_room(), "{case:?}: refused");
                refused += 1;
            }
            Err(other) => panic!("{case:?}: {other:?}"),
        }
    }
    println!("{states} states of {runs} runs, {refused} refused");
    assert!(runs >= 1_000 && states >= 8_000, "{states} states of {runs} runs");
}

/// The first flush is the one before the sector that names what was written.
#[test]
fn a_name_that_is_not_durable_is_found() {
    let is_found = |case: &Case| {
        let Ok(mut run) = run(case) else { return false };
        let first = run.iter().position(|it| it.operation == Operation::Flush).unwrap();
        let names_come_first = run[..first]
            .iter()
            .any(|it| matches!(&it.operation, Operation::Write { offset, .. } if *offset >= 512));
        run.remove(first);
        names_come_first && judge(case, &run).is_err()
    };
    let found = cases().iter().filter(|case| is_found(case)).count();
    assert!(found >= 100, "only {found} runs miss their first flush");
}
