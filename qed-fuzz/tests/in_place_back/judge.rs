//! What must hold of a file whose conversion was interrupted.

use std::sync::Arc;

use qed_convert::qcow2::{Qcow2Image, Qcow2Options};
use qed_core::{LockPolicy, ReadContext, ReadOnlyImage, VirtualDisk};
use qed_fuzz::{CrashState, SparseContent, Subject, disk_of, same_disk};
use qed_io::Storage;

use crate::directions::{Case, Direction, Kept};

/// Which of the two formats of a conversion a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Old,
    New,
}

/// By the first bytes: no disk of these cases begins like an image.
pub(crate) fn format_of(case: &Case, state: &SparseContent) -> Format {
    let mut magic = [0; 4];
    state.read(&mut magic, 0);
    let is_new = match case.direction {
        Direction::ToQcow2 => magic == *b"QFI\xfb",
        Direction::FromRaw => magic == *b"QED\0",
        Direction::ToRaw => magic != *b"QED\0",
    };
    if is_new { Format::New } else { Format::Old }
}

impl Subject for Case {
    type Kind = Format;

    fn make(&self) -> SparseContent {
        self.start.clone()
    }

    fn run(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        self.convert_on(storage, &Kept::default())
    }

    /// With the plan that stands beside the file another call finishes, from either format.
    fn recover(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        let plan = self.plan_of(&*storage);
        self.convert_on(storage, &plan)
    }

    /// After the last step it must be of the new format and have no tail.
    fn judge(&self, state: &CrashState) -> Result<Format, String> {
        let (content, is_over) = (&state.content, state.is_over);
        let found = format_of(self, content);
        if is_over && found == Format::Old {
            return Err("the conversion returned, and was not durable".to_owned());
        }
        let mut finished = content.clone();
        let has_plan = self.direction != Direction::ToQcow2;
        if !is_over && (found == Format::Old || has_plan) {
            let disk = state.disk();
            self.recover(disk.clone())?;
            finished = disk.content();
        }
        let is_done = is_over || found == Format::New || finished != *content;
        if is_done {
            reads_as(self, &finished, Format::New, true)?;
        }
        // A forgery in the guest's first cluster may be in the way until another call wipes it.
        if found == Format::Old || !self.name.contains("forged") {
            reads_as(self, content, found, is_over)?;
        }
        Ok(found)
    }
}

/// Whether the file in this format has the disk; a raw one that is not over may be longer.
fn reads_as(
    case: &Case,
    state: &SparseContent,
    format: Format,
    is_over: bool,
) -> Result<(), String> {
    let storage: Arc<dyn Storage> = disk_of(state);
    let mut bytes = match (case.direction, format) {
        (Direction::ToQcow2, Format::New) => {
            let options = Qcow2Options::new(&case.gate, LockPolicy::None);
            let image = Qcow2Image::open(storage, &options);
            all_of(&image.map_err(|error| format!("QCOW2: {error:?}"))?)?
        }
        (Direction::FromRaw, Format::Old) | (Direction::ToRaw, Format::New) => state.to_vec(),
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
    same_disk(&bytes, &case.disk).map_err(|problem| format!("{format:?}: {problem}"))
}

fn all_of(disk: &dyn VirtualDisk) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; usize::try_from(disk.len()).unwrap()];
    disk.read_at(&mut bytes, 0).map_err(|error| format!("{error:?}"))?;
    Ok(bytes)
}
