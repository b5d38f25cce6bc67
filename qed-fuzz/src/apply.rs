//! Operations done to a QED image by this workspace's own library.

use std::error::Error;
use std::sync::Arc;

use qed_core::{BackingGate, Image, LockPolicy, RecoveryPolicy, Shrink, WriteContext, ZeroMode};
use qed_io::Storage;
use qed_spec::GuestOffset;

use crate::model::Model;
use crate::operation::{Operation, content};

/// Opens the image, locked, does the operations and closes it; the model keeps step.
///
/// A cache of no size makes the image read and write tables as often as it can.
///
/// # Errors
/// The first operation that failed.
///
/// # Panics
/// If a read gives other bytes than the model has.
pub fn apply_to_image(
    storage: Arc<dyn Storage>,
    gate: &dyn BackingGate,
    operations: &[Operation],
    model: &mut Model,
) -> Result<(), Box<dyn Error>> {
    let context = WriteContext {
        cache_limit_bytes: 0,
        ..WriteContext::new(gate, LockPolicy::Take, RecoveryPolicy::Refuse)
    };
    let image = Image::open(storage, &context)?;
    for operation in operations {
        if let Operation::Read { range } = operation {
            let range = usize::try_from(range.start)?..usize::try_from(range.end)?;
            let mut buf = vec![0xee; range.len()];
            image.read_at(&mut buf, GuestOffset::new(range.start as u64))?;
            assert!(buf == model.bytes()[range.clone()], "reading {range:#x?}");
        } else {
            apply(&image, operation)?;
            model.apply(operation);
        }
    }
    Ok(image.close()?)
}

/// Does one operation to an open image; what it reads is dropped.
///
/// # Errors
/// Why it failed.
pub fn apply(image: &Image, operation: &Operation) -> Result<(), Box<dyn Error>> {
    match operation {
        Operation::Write { range, fill } => {
            image.write_at(&content(*fill, range.clone()), GuestOffset::new(range.start))?;
        }
        Operation::WriteZeroes { range } | Operation::Unmap { range } => {
            let mode = match operation {
                Operation::Unmap { .. } => ZeroMode::Unmap,
                _ => ZeroMode::IfNeeded,
            };
            let (at, len) = (GuestOffset::new(range.start), range.end - range.start);
            image.write_zeroes(at, len, mode)?;
        }
        Operation::Read { range } => {
            let mut buf = vec![0; usize::try_from(range.end - range.start)?];
            image.read_at(&mut buf, GuestOffset::new(range.start))?;
        }
        Operation::Flush => image.flush()?,
        Operation::Resize { size } => image.resize(*size, Shrink::Allow)?,
    }
    Ok(())
}
