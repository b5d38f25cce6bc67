//! Chains of every hostile kind.

use super::super::memory::RegionInfo;
use super::super::testing::{
    DATA, Desc, FRONTEND, Guest, MEMORY, SEAM, into, memory_file, out, table,
};
use super::*;

const SIZE: u16 = 8;

fn fill(guest: &Guest, head: u16) -> Result<Chain, ChainError> {
    let mut chain = Chain::default();
    let descriptors = guest.memory.area(FRONTEND + 0x1000, usize::from(SIZE) * 16, 16).unwrap();
    chain.fill(&descriptors, SIZE, head, &guest.memory, true)?;
    Ok(chain)
}

fn of(descs: &[Desc]) -> Result<Chain, ChainError> {
    let guest = Guest::new(SIZE);
    guest.chain(0, descs);
    fill(&guest, 0)
}

fn pieces(parts: &[(u64, u32)]) -> Vec<Piece> {
    parts.iter().map(|&(at, len)| Piece { at, len }).collect()
}

#[test]
fn a_chain_is_what_the_driver_wrote_then_what_the_device_writes() {
    let chain = of(&[out(DATA, 16), out(DATA + 100, 7), into(DATA + 200, 5)]).unwrap();
    assert_eq!(chain.readable, pieces(&[(DATA, 16), (DATA + 100, 7)]));
    assert_eq!(chain.writable, pieces(&[(DATA + 200, 5)]));
}

#[test]
fn a_descriptor_over_the_seam_of_regions_has_two_pieces() {
    let chain = of(&[into(SEAM - 3, 10)]).unwrap();
    assert_eq!(chain.writable, pieces(&[(SEAM - 3, 3), (SEAM, 7)]));
}

#[test]
fn a_chain_may_have_every_descriptor_of_its_table_and_no_more() {
    let full: Vec<_> = (0..SIZE).map(|_| out(DATA, 1)).collect();
    assert_eq!(of(&full).unwrap().readable.len(), usize::from(SIZE));
    // A ring of all of them, and one of a single one.
    let guest = Guest::new(SIZE);
    guest.chain(0, &full);
    guest.describe(SIZE - 1, Desc { flags: NEXT, next: 0, ..out(DATA, 1) });
    assert!(matches!(fill(&guest, 0), Err(ChainError::TooLong)));
    guest.describe(3, Desc { flags: NEXT, next: 3, ..out(DATA, 1) });
    assert!(matches!(fill(&guest, 3), Err(ChainError::TooLong)));
}

#[test]
fn a_descriptor_that_is_not_in_the_table_is_refused() {
    let guest = Guest::new(SIZE);
    guest.describe(0, Desc { flags: NEXT, next: SIZE, ..out(DATA, 1) });
    assert!(matches!(fill(&guest, 0), Err(ChainError::NoDescriptor { index: 8, entries: 8 })));
    guest.describe(0, Desc { flags: NEXT, next: u16::MAX, ..out(DATA, 1) });
    assert!(matches!(fill(&guest, 0), Err(ChainError::NoDescriptor { .. })));
    assert!(matches!(fill(&guest, SIZE), Err(ChainError::NoDescriptor { .. })));
}

#[test]
fn memory_that_the_guest_has_not_is_refused() {
    for (at, len) in [(MEMORY, 1), (MEMORY - 1, 2), (u64::MAX, 1), (0, u32::MAX), (u64::MAX, 2)] {
        for desc in [out(at, len), into(at, len)] {
            assert!(matches!(of(&[desc]), Err(ChainError::Memory(_))), "{at:#x} {len}");
        }
    }
}

#[test]
fn descriptors_without_bytes_say_nothing() {
    let chain = of(&[out(u64::MAX, 0), out(DATA, 1), into(0, 0), into(DATA, 1)]).unwrap();
    assert_eq!(chain.readable, pieces(&[(DATA, 1)]));
    assert_eq!(chain.writable, pieces(&[(DATA, 1)]));
}

#[test]
fn what_is_read_cannot_come_after_what_is_written() {
    assert!(matches!(of(&[into(DATA, 1), out(DATA, 1)]), Err(ChainError::OutOfOrder)));
}

#[test]
fn a_chain_of_four_gibibytes_is_refused() {
    // The same memory again and again: no guest needs to have so much.
    let (at, len) = (1 << 32, 64 << 20);
    let region = RegionInfo { guest: at, len, frontend: at, file_offset: 0 };
    let mut guest = Guest::new(SIZE);
    guest.memory = guest.memory.with(region, memory_file(len)).unwrap();
    let whole = u32::try_from(len).unwrap();
    for make in [into, out] {
        let mut many = vec![make(at, whole); 64];
        guest.chain_in(DATA, 0, &many);
        guest.describe(0, table(DATA, 64));
        assert!(matches!(fill(&guest, 0), Err(ChainError::TooManyBytes)));
        many[0] = make(at, whole - 1);
        guest.chain_in(DATA, 0, &many);
        let chain = fill(&guest, 0).unwrap();
        let lens = len_of(&chain.readable) + len_of(&chain.writable);
        assert_eq!(lens, u64::from(u32::MAX));
    }
}

#[test]
fn an_indirect_table_ends_a_chain() {
    let guest = Guest::new(SIZE);
    guest.chain_in(DATA, 0, &[out(DATA + 1, 1), into(DATA + 2, 2)]);
    guest.chain(0, &[out(DATA + 3, 3), table(DATA, 2)]);
    let chain = fill(&guest, 0).unwrap();
    assert_eq!(chain.readable, pieces(&[(DATA + 3, 3), (DATA + 1, 1)]));
    assert_eq!(chain.writable, pieces(&[(DATA + 2, 2)]));
    // Not when that was not negotiated.
    let descriptors = guest.memory.area(FRONTEND + 0x1000, 128, 16).unwrap();
    let refused = Chain::default().fill(&descriptors, SIZE, 0, &guest.memory, false);
    assert!(matches!(refused, Err(ChainError::BadIndirect)));
}

#[test]
fn an_indirect_table_may_lie_anywhere_and_cross_the_seam() {
    let guest = Guest::new(SIZE);
    for at in [DATA + 1, SEAM - 8, MEMORY - 32] {
        guest.chain_in(at, 0, &[out(DATA, 1), out(DATA, 2)]);
        guest.describe(0, table(at, 2));
        assert_eq!(fill(&guest, 0).unwrap().readable.len(), 2, "{at:#x}");
    }
}

#[test]
fn tables_in_tables_and_tables_of_no_length_are_refused() {
    let guest = Guest::new(SIZE);
    guest.write(DATA, &table(DATA, 1).bytes());
    guest.describe(0, table(DATA, 1));
    assert!(matches!(fill(&guest, 0), Err(ChainError::BadIndirect)));
    // A table that goes on.
    guest.describe(0, Desc { flags: INDIRECT | NEXT, next: 1, ..table(DATA, 1) });
    assert!(matches!(fill(&guest, 0), Err(ChainError::BadIndirect)));
    for len in [0, 1, 15, 17, 31, u32::MAX] {
        guest.describe(0, Desc { len, ..table(DATA, 1) });
        assert!(matches!(fill(&guest, 0), Err(ChainError::IndirectLength(_))), "{len}");
    }
    // One that lies outside, or whose next descriptor does.
    for at in [MEMORY, MEMORY - 8, u64::MAX - 8, u64::MAX] {
        guest.describe(0, table(at, 1));
        assert!(matches!(fill(&guest, 0), Err(ChainError::Memory(_))), "{at:#x}");
    }
    guest.chain_in(MEMORY - 16, 0, &[out(DATA, 1)]);
    guest.write(MEMORY - 16, &Desc { flags: NEXT, next: 1, ..out(DATA, 1) }.bytes());
    guest.describe(0, table(MEMORY - 16, 1 << 20));
    assert!(matches!(fill(&guest, 0), Err(ChainError::Memory(_))));
    guest.describe(0, table(MEMORY - 16, 1));
    assert!(matches!(fill(&guest, 0), Err(ChainError::TooLong)));
}

#[test]
fn an_indirect_ring_ends_at_the_limit() {
    let guest = Guest::new(SIZE);
    guest.write(DATA, &Desc { flags: NEXT, next: 0, ..out(DATA, 1) }.bytes());
    guest.describe(0, table(DATA, 60_000));
    assert!(matches!(fill(&guest, 0), Err(ChainError::TooLong)));
}

#[test]
fn fronts_and_ends_are_taken_over_the_bounds_of_pieces() {
    let guest = Guest::new(SIZE);
    guest.write(DATA, &[1, 2, 3, 4, 5, 6]);
    let parts = pieces(&[(DATA, 1), (DATA + 1, 2), (DATA + 3, 3)]);
    let mut rest = parts.clone();
    assert_eq!(take_front::<4>(&mut rest, &guest.memory).unwrap(), Some([1, 2, 3, 4]));
    assert_eq!(rest, pieces(&[(DATA + 4, 2)]));
    assert_eq!(take_front::<2>(&mut rest, &guest.memory).unwrap(), Some([5, 6]));
    assert_eq!(rest, []);
    assert_eq!(take_front::<1>(&mut rest, &guest.memory).unwrap(), None);
    assert_eq!(take_front::<7>(&mut parts.clone(), &guest.memory).unwrap(), None);
    let mut rest = pieces(&[(DATA, 2), (DATA + 9, 1)]);
    assert_eq!(take_last(&mut rest), Some(DATA + 9));
    assert_eq!(take_last(&mut rest), Some(DATA + 1));
    assert_eq!(take_last(&mut rest), Some(DATA));
    assert_eq!(take_last(&mut rest), None);
}
