//! Regions and places that are none.

use std::os::fd::OwnedFd;

use super::super::testing::{FRONTEND, Guest, MEMORY, SEAM, memory_file};
use super::*;

fn info(guest: u64, len: u64, frontend: u64) -> RegionInfo {
    RegionInfo { guest, len, frontend, file_offset: 0 }
}

fn why(info: RegionInfo, file_len: u64) -> MemoryError {
    let guest = Guest::new(8);
    guest.memory.with(info, memory_file(file_len)).unwrap_err()
}

#[test]
fn a_region_that_its_file_does_not_hold_is_refused() {
    // To touch what is missing would end the process by SIGBUS.
    let free = MEMORY * 4;
    let short = |info, len| matches!(why(info, len), MemoryError::FileTooShort { .. });
    assert!(short(info(free, 8192, free), 4096));
    assert!(short(info(free, 4097, free), 4096));
    assert!(short(info(free, 1, free), 0));
    let past = RegionInfo { file_offset: 4096, ..info(free, 4096, free) };
    assert!(short(past, 4096));
    assert!(short(RegionInfo { file_offset: u64::MAX, ..past }, 4096));
    let memory = Guest::new(8).memory;
    memory.with(past, memory_file(8192)).unwrap();
}

#[test]
fn what_is_no_file_is_refused() {
    let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let region = info(0, 4096, 0);
    let no_file = Memory::default().with(region, OwnedFd::from(end).into());
    assert!(matches!(no_file.unwrap_err(), MemoryError::NoFile));
    let device = File::open("/dev/zero").unwrap();
    let no_file = Memory::default().with(region, device);
    assert!(matches!(no_file.unwrap_err(), MemoryError::NoFile));
}

#[test]
fn regions_that_overlap_or_end_past_everything_are_refused() {
    let free = MEMORY * 4;
    let is_overlap = |info| matches!(why(info, 4096), MemoryError::Overlap { .. });
    assert!(is_overlap(info(0, 4096, free)));
    assert!(is_overlap(info(SEAM - 4096, 4096, free)));
    assert!(is_overlap(info(MEMORY - 1, 4096, free)));
    // By the addresses of the frontend alone.
    assert!(is_overlap(info(free, 4096, FRONTEND)));
    assert!(is_overlap(info(free, 4096, FRONTEND + SEAM - 1)));
    let no_range = |info| matches!(why(info, 4096), MemoryError::NoRange { .. });
    assert!(no_range(info(free, 0, free)));
    assert!(no_range(info(u64::MAX - 4095, 4096 + 1, free)));
    assert!(no_range(info(free, 4096, u64::MAX)));
    assert!(no_range(info(free, u64::MAX, free)));
}

#[test]
fn a_region_can_be_taken_out_and_others_stay() {
    let guest = Guest::new(8);
    let first = info(0, SEAM, FRONTEND);
    let without = guest.memory.without(first).unwrap();
    assert!(without.read(&mut [0; 1], SEAM - 1).is_err());
    without.read(&mut [0; 1], SEAM).unwrap();
    // Whoever still has the memory before keeps it mapped.
    guest.memory.read(&mut [0; 1], 0).unwrap();
    for other in [info(0, SEAM - 1, FRONTEND), info(1, SEAM, FRONTEND), info(0, SEAM, 0)] {
        assert!(matches!(guest.memory.without(other).unwrap_err(), MemoryError::Unknown));
    }
    let again = RegionInfo { file_offset: 99, ..first };
    guest.memory.without(again).expect("where it lies in its file does not count");
}

#[test]
fn no_more_regions_than_the_limit_are_taken() {
    let page = |index: usize| {
        let at = index as u64 * 8192;
        info(at, 4096, at)
    };
    let file = memory_file(4096);
    let mut memory = Memory::default();
    for index in 0..MAX_REGIONS {
        memory = memory.with(page(index), file.try_clone().unwrap()).unwrap();
    }
    let more = memory.with(page(MAX_REGIONS), file).unwrap_err();
    assert!(matches!(more, MemoryError::TooMany));
}

#[test]
fn bytes_cross_the_seam_of_regions_and_nothing_is_written_past_the_end() {
    let guest = Guest::new(8);
    let bytes: Vec<u8> = (0..200).collect();
    guest.memory.write(&bytes, SEAM - 100).unwrap();
    let mut read = vec![0; 200];
    guest.memory.read(&mut read, SEAM - 100).unwrap();
    assert_eq!(read, bytes);
    let mut pieces = Vec::new();
    guest.memory.cut(SEAM - 100, 200, |piece| pieces.push(piece)).unwrap();
    assert_eq!(pieces, [Piece { at: SEAM - 100, len: 100 }, Piece { at: SEAM, len: 100 }]);

    guest.memory.write(&[7; 16], MEMORY - 16).unwrap();
    assert!(guest.memory.write(&[9; 17], MEMORY - 16).is_err());
    guest.memory.read(&mut read[..16], MEMORY - 16).unwrap();
    assert_eq!(read[..16], [7; 16], "a write that does not fit writes nothing");
    for (at, len) in [(MEMORY, 1), (u64::MAX, 1), (u64::MAX, 2), (MEMORY - 1, u32::MAX)] {
        assert!(guest.memory.cut(at, len, |_| {}).is_err(), "{at:#x} {len}");
    }
    guest.memory.cut(u64::MAX, 0, |_| panic!("no bytes have no piece")).unwrap();
}

#[test]
fn an_area_lies_in_one_region_and_is_aligned() {
    let guest = Guest::new(8);
    let area = |at: u64, len: usize| guest.memory.area(FRONTEND + at, len, 16);
    assert!(area(0, 64).is_ok());
    assert!(area(SEAM - 64, 64).is_ok());
    for (at, len) in [(SEAM - 64, 65), (SEAM, 64), (u64::MAX - FRONTEND, 1), (0, usize::MAX)] {
        assert!(matches!(area(at, len), Err(MemoryError::Outside { .. })), "{at:#x} {len}");
    }
    assert!(matches!(area(8, 64), Err(MemoryError::Unaligned { .. })));
    let words = area(0, 64).unwrap();
    assert!(words.u16_at(62).is_some() && words.u16_at(63).is_none());
    assert!(words.u32_at(60).is_some() && words.u32_at(62).is_none());
    assert!(words.read::<16>(48).is_some() && words.read::<16>(49).is_none());
    assert!(words.u16_at(usize::MAX).is_none() && words.u16_at(1).is_none());
}
