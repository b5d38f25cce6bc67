//! What must hold of a file whose conversion was interrupted.

use std::sync::Arc;

use qed_convert::{Qcow2Image, Qcow2Options};
use qed_core::{LockPolicy, ReadContext, ReadOnlyImage, VirtualDisk};
use qed_fuzz::{CrashDisk, DiskContent};
use qed_io::{Operation, Record, Storage};

use crate::directions::{Case, Direction};

/// Which of the two formats of a conversion a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Old,
    New,
}

/// By the first bytes: no disk of these cases begins like an image.
pub(crate) fn format_of(case: &Case, state: &DiskContent) -> Format {
    let mut magic = [0; 4];
    state.read(&mut magic, 0);
    let is_new = match case.direction {
        Direction::ToQcow2 => magic == *b"QFI\xfb",
        Direction::FromRaw => magic == *b"QED\0",
        Direction::ToRaw => magic != *b"QED\0",
    };
    if is_new { Format::New } else { Format::Old }
}

/// Judges one state; after the last step it must be of the new format and have no tail.
pub(crate) fn judge(case: &Case, state: &DiskContent, is_last: bool) -> Result<Format, String> {
    let found = format_of(case, state);
    if is_last && found == Format::Old {
        return Err("the conversion returned, and was not durable".to_owned());
    }
    // With a plan beside it another call finishes, from either format.
    let mut finished = state.clone();
    let has_plan = case.direction != Direction::ToQcow2;
    if !is_last && (found == Format::Old || has_plan) {
        let disk = Arc::new(CrashDisk::new(state.clone()));
        case.convert_on(disk.clone(), &case.plan_of(state))?;
        finished = disk.content();
    }
    let is_done = is_last || found == Format::New || finished != *state;
    if is_done {
        reads_as(case, &finished, Format::New, true)?;
    }
    // A forgery in the guest's first cluster may be in the way until another call wipes it.
    if found == Format::Old || !case.name.contains("forged") {
        reads_as(case, state, found, is_last)?;
    }
    Ok(found)
}

/// Whether the file in this format has the disk; a raw one that is not over may be longer.
fn reads_as(case: &Case, state: &DiskContent, format: Format, is_over: bool) -> Result<(), String> {
    let storage: Arc<dyn Storage> = Arc::new(CrashDisk::new(state.clone()));
    let mut bytes = match (case.direction, format) {
        (Direction::ToQcow2, Format::New) => {
            let options = Qcow2Options::new(&case.gate, LockPolicy::None);
            let image = Qcow2Image::open(storage, &options);
            all_of(&image.map_err(|error| format!("QCOW2: {error:?}"))?)?
        }
        (Direction::FromRaw, Format::Old) | (Direction::ToRaw, Format::New) => state.bytes(),
        _ => {
            let context = ReadContext::new(&case.gate, LockPolicy::None);
            let image = ReadOnlyImage::open(storage, &context);
            all_of(&image.map_err(|error| format!("QED: {error:?}"))?)?
        }
    };
    let is_raw_tail = case.direction == Direction::FromRaw && format == Format::Old
        || case.direction == Direction::ToRaw && format == Format::New && !is_over;
    if is_raw_tail {
        bytes.truncate(case.disk.len());
    }
    if bytes.len() != case.disk.len() {
        return Err(format!("{format:?}: the disk has {} bytes", bytes.len()));
    }
    match bytes.iter().zip(&case.disk).position(|(found, wanted)| found != wanted) {
        Some(at) => Err(format!("{format:?}: byte {at:#x} of the disk is lost")),
        None => Ok(()),
    }
}

fn all_of(disk: &dyn VirtualDisk) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; usize::try_from(disk.len()).unwrap()];
    disk.read_at(&mut bytes, 0).map_err(|error| format!("{error:?}"))?;
    Ok(bytes)
}

/// What the file holds once all of a run is done.
pub(crate) fn applied(start: &DiskContent, run: &[Record]) -> DiskContent {
    let disk = CrashDisk::new(start.clone());
    for record in run {
        let done = match &record.operation {
            Operation::Write { offset, bytes } => disk.write_at(bytes, *offset),
            Operation::WriteZeroes(range) => disk.write_zeroes(range.clone()),
            Operation::PunchHole(range) => disk.punch_hole(range.clone()).map(|_| ()),
            Operation::SetLen(len) => disk.set_len(*len),
            Operation::Flush => Ok(()),
        };
        done.unwrap();
    }
    disk.content()
}
