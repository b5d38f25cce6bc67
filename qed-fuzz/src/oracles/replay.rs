//! What a replay makes of an image, seen three ways: through a view, in the file, and by a guest that
//! goes on, and is stopped again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_check::{CheckOptions, check, recovery_hook};
use qed_core::{GivenBacking, Image as OpenImage, LockPolicy, RecoveryPolicy, WriteContext};
use qed_io::{RunKind, Storage};
use qed_spec::GuestOffset;

use crate::apply::apply;
use crate::branches::Branches;
use crate::model::Model;
use crate::operation::Operation;
use crate::oracles::assert_reads_as;
use crate::oracles::journal::Log;
use crate::size::usize_of;
use crate::sparse::SparseStorage;

/// Where the copies of the superblock lie, which a replay writes and a view does not show.
const SUPERBLOCKS: std::ops::Range<u64> = 8192..16384;
/// Blocks that are compared.
const BLOCK: u64 = 4096;
/// Guest disks that are read whole.
const MAX_DISK: u64 = 8 << 20;
/// Bits of features.
const JOURNAL_ACTIVE: u64 = 1 << 32;

/// The bytes of an image, without its superblocks and JOURNAL_ACTIVE.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Image {
    len: u64,
    /// Blocks that are not all zeros, by their number.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    pub(crate) fn of(storage: &dyn Storage) -> Self {
        let len = storage.len().expect("memory has a length");
        let mut blocks = BTreeMap::new();
        let mut at = 0;
        while at < len {
            let run = storage.run_at(at).expect("inside the image");
            assert!(run.len > 0, "a run without bytes at {at:#x} of {len:#x}");
            let end = (at + run.len).min(len);
            if run.kind != RunKind::Hole {
                for number in at / BLOCK..end.div_ceil(BLOCK) {
                    blocks.entry(number).or_insert_with(|| block(storage, number, len));
                }
            }
            at = end;
        }
        blocks.retain(|number, bytes| {
            !SUPERBLOCKS.contains(&(number * BLOCK)) && bytes.iter().any(|byte| *byte != 0)
        });
        Self { len, blocks }
    }

    fn set(&mut self, at: u64, value: u64) {
        let block = self.blocks.entry(at / BLOCK).or_insert_with(|| vec![0; usize_of(BLOCK)]);
        let within = usize_of(at % BLOCK);
        block[within..within + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// A block, filled up with zeros at the end of the file.
fn block(storage: &dyn Storage, number: u64, len: u64) -> Vec<u8> {
    let at = number * BLOCK;
    let mut bytes = vec![0; usize_of(BLOCK)];
    let there = usize_of((len - at).min(BLOCK));
    storage.read_at(&mut bytes[..there], at).expect("inside the image");
    if number == 0 {
        let features = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
        bytes[16..24].copy_from_slice(&(features & !JOURNAL_ACTIVE).to_le_bytes());
    }
    bytes
}

/// The view is the image with every slot of the log in its place.
///
/// # Panics
/// If it is not.
pub(crate) fn assert_as_the_log_says(view: &Image, image: &Image, log: &Log) {
    let mut expected = Image { len: image.len.max(log.len), blocks: image.blocks.clone() };
    for (at, value) in &log.slots {
        expected.set(*at, *value);
    }
    expected.blocks.retain(|_, bytes| bytes.iter().any(|byte| *byte != 0));
    assert_eq!(view.len, expected.len, "the length that is shown");
    assert!(view.blocks == expected.blocks, "the tables that are shown");
}

/// A check of the view says what one of the file says once it is replayed.
///
/// # Panics
/// If they differ.
pub(crate) fn assert_checked_alike(view: &dyn Storage, file: &dyn Storage) {
    let said = |storage| {
        let mut options = CheckOptions::default();
        options.findings_limit = usize::MAX;
        check(storage, &options).map(|report| (report.findings, report.statistics, report.dirty))
    };
    assert_eq!(format!("{:?}", said(view)), format!("{:?}", said(file)), "the check of the view");
}

/// A guest that opens the image, writes, flushes and is killed finds what it wrote; and so does one
/// that closes.
///
/// # Panics
/// If it does not.
pub(crate) fn assert_goes_on(
    from: &mut Unstructured<'_>,
    replayed: &SparseStorage,
    crashed: &SparseStorage,
    branches: &mut Branches,
) -> Result<()> {
    let report = check(replayed, &CheckOptions::default());
    let is_clean = report.is_ok_and(|report| report.corruptions() == 0);
    let start = Arc::new(crashed.copy());
    let Some((image, mut model)) = is_clean.then(|| open(&start)).flatten() else { return Ok(()) };
    for _ in 0..from.int_in_range(1..=6)? {
        let operation = operation(from, model.size())?;
        let done = apply(&image, &operation);
        branches.note("operation", done.as_ref().map(drop).map_err(drop));
        done.expect("memory takes every write");
        model.apply(&operation);
    }
    image.flush().expect("memory takes every write");
    let killed = Arc::new(start.copy());
    assert_reads_as(&image, &model);
    image.close().expect("memory takes every write");
    for storage in [killed, start] {
        let (image, found) = open(&storage).expect("what was open opens again");
        assert!(found.bytes() == model.bytes(), "what was flushed is lost");
        image.close().expect("nothing is to be written");
    }
    Ok(())
}

/// The image open for writing, and what it reads as; none if that is too much.
fn open(storage: &Arc<SparseStorage>) -> Option<(OpenImage, Model)> {
    let gate = GivenBacking(None);
    let context = WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
    let image = OpenImage::open(Arc::<SparseStorage>::clone(storage), &context);
    let image = image.expect("an image without corruptions opens");
    let len = image.image_size();
    if len == 0 || len > MAX_DISK {
        return None;
    }
    let mut bytes = vec![0; usize_of(len)];
    image.read_at(&mut bytes, GuestOffset::new(0)).expect("the tables are in order");
    Some((image, Model::of(bytes)))
}

fn operation(from: &mut Unstructured<'_>, size: u64) -> Result<Operation> {
    let start = from.int_in_range(0..=size - 1)?;
    let start = if from.arbitrary()? { start % (16 * BLOCK) } else { start }.min(size - 1);
    let range = start..(start + from.int_in_range(1..=3 * BLOCK)?).min(size);
    Ok(match from.int_in_range(0..=7)? {
        0 => Operation::Flush,
        1 => Operation::WriteZeroes { range },
        2 => Operation::Unmap { range },
        _ => Operation::Write { range, fill: from.arbitrary()? },
    })
}
