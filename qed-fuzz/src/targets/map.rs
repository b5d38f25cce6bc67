//! Near-valid images open for reading, perhaps over a backing file: each byte is mapped once, and
//! reads as the bytes of the files say.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_core::{GivenBacking, OpenError, RawFile, VirtualDisk};
use qed_io::MemoryStorage;

use crate::branches::Branches;
use crate::generators::image::{ImageCase, backing_bytes};
use crate::generators::number::number;
use crate::oracles::guest::{Guest, Reader};
use crate::oracles::strict::Strict;
use crate::oracles::validity::{open_for_reading, reference_of};

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let backing_len = 8 * from.int_in_range(0..=16384)?;
    let backing = backing_bytes(if from.arbitrary()? { backing_len } else { 0 });
    let storage = Arc::new(ImageCase::near_valid(from)?.storage);
    let raw = RawFile::open(Arc::new(MemoryStorage::new(backing.clone())));
    let raw: Arc<dyn VirtualDisk> = Arc::new(Strict(raw.expect("memory has a length")));
    let gate = GivenBacking(Some(raw));
    let Some(reference) = reference_of(&storage, &gate) else { return Ok(()) };
    let before = storage.content();
    let image = match open_for_reading(&storage, &gate) {
        Ok(image) => image,
        Err(OpenError::BackingName(_)) => return Ok(()),
        Err(error) => panic!("{error:?}"),
    };
    let under = image.backing().map(|_| &backing[..]);
    let guest = Guest::new(&reference, Reader::AsItIs, under);
    branches.note("backing", under);
    for table in &reference.tables {
        branches.note(if reference.is_dirty { "dirty-table" } else { "table" }, table.start);
    }
    for run in guest.runs() {
        branches.note(if reference.is_dirty { "dirty-map" } else { "map" }, run.source);
    }
    guest.assert_shown_by(&image);
    let edges: Vec<u64> =
        guest.runs().iter().flat_map(|run| [run.guest.start, run.guest.end]).collect();
    for _ in 0..4 {
        let start = number(from, &edges)?.min(guest.len());
        let len = from.int_in_range(0..=20_000)?;
        guest.assert_read_by(&image, start..start.saturating_add(len).min(guest.len()));
    }
    assert_eq!(storage.content(), before, "reading changed the image");
    Ok(())
}
