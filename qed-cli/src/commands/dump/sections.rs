//! The sections of a superblock, and what those that the specification names say.

use std::io;

use qed_spec::{
    ConsistencyMode, ImageOwner, RawDirtyBitmap, RawJournalRing, RawPhysicalSize, Section,
    SectionType, StoredBackingFormat, Superblock,
};
use zerocopy::FromBytes;

use super::fields::{Field, Value, plain};

/// Shows what lies in the superblock `bytes` from `at` on.
pub(super) fn for_each(
    bytes: &[u8],
    start: u64,
    mut at: usize,
    mut show: impl FnMut(Field) -> io::Result<()>,
) -> io::Result<()> {
    let superblock = Superblock::parse(bytes);
    for section in superblock.iter().flat_map(Superblock::sections) {
        let name = section.kind().name().map(str::to_owned);
        let len = 8 + section.payload().len().next_multiple_of(8);
        show(Field {
            start: start + at as u64,
            len: len as u64,
            name: name.unwrap_or_else(|| format!("section_{}", section.kind().get())),
            value: Value::Bytes(section.payload().to_vec()),
            note: note(&section),
        })?;
        at += len;
    }
    let (name, note) = match superblock {
        Ok(_) => ("padding", String::new()),
        Err(error) => ("sections", format!("not valid: {error}")),
    };
    match bytes.get(at..) {
        Some(rest @ [_, ..]) => show(plain(start + at as u64, rest, name, note)),
        _ => Ok(()),
    }
}

fn note(section: &Section<'_>) -> String {
    let kind = section.kind();
    match meaning(kind, section.payload()) {
        Some(meaning) => format!("section of type {}: {meaning}", kind.get()),
        None => format!("section of type {}", kind.get()),
    }
}

/// What the payload of a known section says; none if it has not the length that it must have.
fn meaning(kind: SectionType, payload: &[u8]) -> Option<String> {
    Some(match kind {
        SectionType::MODE => match ConsistencyMode::parse(payload) {
            Ok(ConsistencyMode::Compat) => "compat".to_owned(),
            Ok(ConsistencyMode::Journal) => "journal".to_owned(),
            Err(error) => error.to_string(),
        },
        SectionType::TABLE_DIRTY => {
            let RawDirtyBitmap { offset, len_bytes, epoch_size } =
                RawDirtyBitmap::read_from_bytes(payload).ok()?;
            format!("{len_bytes} bytes at {offset:#x}, epoch size {epoch_size}")
        }
        SectionType::JOURNAL => {
            let RawJournalRing { offset, len_bytes, tail_sequence, stable_sequence } =
                RawJournalRing::read_from_bytes(payload).ok()?;
            format!(
                "{len_bytes} bytes at {offset:#x}, tail at block {tail_sequence}, \
                 block {stable_sequence} durable"
            )
        }
        SectionType::PHYSICAL_SIZE => {
            let RawPhysicalSize { physical_size, device_size } =
                RawPhysicalSize::read_from_bytes(payload).ok()?;
            format!("physical size {physical_size}, device size {device_size}")
        }
        SectionType::OWNER => {
            let owner = ImageOwner::parse(payload).ok()?;
            let host = owner.host_name().escape_ascii();
            match owner.token() {
                None => "nobody".to_owned(),
                Some(token) => format!("token {token:#x}, host {host}, since {}", owner.since()),
            }
        }
        SectionType::BACKING_FORMAT => {
            StoredBackingFormat::parse(payload).ok()?.format().to_owned()
        }
        _ => return None,
    })
}
