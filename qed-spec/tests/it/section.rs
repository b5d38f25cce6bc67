//! Rewriting a superblock: what changes, and that all else stays byte for byte.

use qed_spec::{
    Epoch, Generation, ImageUuid, SectionType, Superblock, SuperblockBuilder, SuperblockFull,
};

use crate::superblock::{UUID, builder, copy};

// spec-test: QED-SB-13
#[test]
fn rewriting_without_a_change_gives_the_same_bytes() {
    let bytes = copy(3);
    let superblock = Superblock::parse(&bytes).expect("valid");
    let again = SuperblockBuilder::from_superblock(&superblock);
    assert_eq!(again.encode(superblock.generation()), bytes);
}

// spec-test: QED-SB-13, QED-SB-06
#[test]
fn a_change_keeps_unknown_sections_byte_for_byte() {
    let bytes = copy(3);
    let old = Superblock::parse(&bytes).expect("valid");
    let mut builder = SuperblockBuilder::from_superblock(&old);
    builder.set_epoch(Epoch::new(9));
    for (kind, payload) in [(1, &b"longer than before"[..]), (50, b"new"), (80_000, b"last")] {
        builder.set_section(SectionType::new(kind), payload).expect("room");
    }
    builder.remove_section(SectionType::new(12345));
    let bytes = builder.encode(Generation::new(4).expect("not zero"));
    let new = Superblock::parse(&bytes).expect("valid");
    assert_eq!((new.uuid(), new.epoch()), (old.uuid(), Epoch::new(9)));
    let found: Vec<_> = new.sections().map(|s| (s.kind().get(), s.payload())).collect();
    let expected: [(u32, &[u8]); 5] = [
        (1, b"longer than before"),
        (50, b"new"),
        (99, b""),
        (70_000, b"unknown"),
        (80_000, b"last"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn removing_every_section_gives_a_copy_without() {
    let mut builder = builder();
    for kind in [70_000, 1, 99, 1] {
        builder.remove_section(SectionType::new(kind));
    }
    let empty = SuperblockBuilder::new(ImageUuid::new(UUID), Epoch::new(0x1122_3344));
    assert_eq!(builder.encode(Generation::FIRST), empty.encode(Generation::FIRST));
}

// spec-test: QED-SB-07
#[test]
fn a_section_that_does_not_fit_changes_nothing() {
    let kind = SectionType::new(2000);
    for (payload_len, fits) in [(4048 - 40 - 8, true), (4048 - 40 - 7, false), (5000, false)] {
        let mut builder = builder();
        let result = builder.set_section(kind, &vec![1; payload_len]);
        let needed = (payload_len as u64 + 8).next_multiple_of(8);
        match result {
            Ok(()) => assert!(fits, "{payload_len}"),
            Err(full) => {
                assert!(!fits, "{payload_len}");
                assert_eq!((full.kind, full.needed), (kind, needed));
                assert_eq!(builder.encode(Generation::FIRST), copy(1), "unchanged");
            }
        }
    }
    let full = SuperblockFull { kind: SectionType::JOURNAL, needed: 80, free: 8 };
    let text = "section of type 3 (JOURNAL) needs 80 bytes of the superblock, more than the 8 left";
    assert_eq!(full.to_string(), text);
}

// spec-test: QED-SB-09
#[test]
fn generations_start_at_one_and_end() {
    assert_eq!(Generation::new(0), None);
    assert_eq!(Generation::FIRST.get(), 1);
    assert_eq!(Generation::FIRST.next().map(Generation::get), Some(2));
    assert_eq!(Generation::new(u64::MAX).and_then(Generation::next), None);
}
