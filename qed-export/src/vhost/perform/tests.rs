//! Requests, their limits and their statuses.

use super::super::memory::Shared;
use super::super::request::{Asked as Parsed, RequestError};
use super::super::testing::{Asked, DATA, Guest, TestDisk, memory_file};
use super::*;

const MIB: usize = 1 << 20;
const STATUS_AT: u64 = DATA - 1;

/// One request on a disk of a mebibyte.
struct Case<'c> {
    disk: &'c TestDisk,
    guest: &'c Guest,
    has_write_cache: bool,
    log: Option<&'c DirtyLog>,
}

impl<'c> Case<'c> {
    fn of(disk: &'c TestDisk, guest: &'c Guest) -> Self {
        Self { disk, guest, has_write_cache: true, log: None }
    }

    /// The head, what the driver wrote, and how many bytes the device may write at `DATA`.
    fn run(&self, kind: u32, sector: u64, out: &[u8], into: u32) -> (Status, u32) {
        let head = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.guest.write(0x2_0000, &[&head, out].concat());
        let readable = u32::try_from(head.len() + out.len()).unwrap();
        let mut chain =
            Chain { readable: vec![Piece { at: 0x2_0000, len: readable }], writable: vec![] };
        self.guest.memory.cut(DATA, into, |piece| chain.writable.push(piece)).unwrap();
        chain.writable.push(Piece { at: STATUS_AT, len: 1 });
        let parsed = Parsed::parse(&mut chain, &self.guest.memory).unwrap();
        assert_eq!(parsed.status_at, STATUS_AT);
        let place = Place {
            device: self.disk,
            memory: &self.guest.memory,
            log: self.log,
            id: b"0123456789abcdefghij",
            has_write_cache: self.has_write_cache,
        };
        let outcome = perform(place, parsed.request, &mut chain);
        (outcome.status, outcome.written)
    }
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn reads_and_writes_move_whole_sectors_inside_the_disk() {
    let (disk, guest) = (TestDisk::new(MIB), Guest::new(8));
    let case = Case::of(&disk, &guest);
    assert_eq!(case.run(request::IN, 3, &[], 1024), (Status::Ok, 1024));
    assert_eq!(guest.read(DATA, 1024), disk.bytes(3 * 512, 1024));
    assert_eq!(case.run(request::OUT, 5, &[0xaa; 512], 0), (Status::Ok, 0));
    assert_eq!(disk.bytes(5 * 512, 512), [0xaa; 512]);
    assert_eq!(disk.asked(), [Asked::Write(5 * 512, 512)]);
    let end = MIB as u64 / 512;
    for (sector, len) in
        [(end, 512), (end - 1, 1024), (u64::MAX, 512), (1 << 55, 512), (0, 511), (0, 513)]
    {
        assert_eq!(case.run(request::IN, sector, &[], len), (Status::IoError, 0), "{sector} {len}");
        let out = vec![0; len as usize];
        assert_eq!(case.run(request::OUT, sector, &out, 0), (Status::IoError, 0), "{sector} {len}");
    }
    assert_eq!(disk.asked(), []);
    // What a disk has behind its last whole sector is not the guest's.
    let odd = TestDisk::new(1000);
    let case = Case::of(&odd, &guest);
    assert_eq!(case.run(request::IN, 0, &[], 512).0, Status::Ok);
    assert_eq!(case.run(request::IN, 1, &[], 512).0, Status::IoError);
}

#[test]
fn a_request_that_is_longer_than_a_buffer_is_moved_in_parts() {
    let (disk, guest) = (TestDisk::new(MIB), Guest::new(8));
    let case = Case::of(&disk, &guest);
    assert_eq!(case.run(request::IN, 0, &[], 600 << 10), (Status::Ok, 600 << 10));
    assert_eq!(guest.read(DATA, 600 << 10), disk.bytes(0, 600 << 10));
}

#[test]
fn without_a_write_cache_what_changes_the_disk_is_flushed() {
    let (disk, guest) = (TestDisk::new(MIB), Guest::new(8));
    let case = Case { has_write_cache: false, ..Case::of(&disk, &guest) };
    case.run(request::OUT, 0, &[0; 512], 0);
    assert_eq!(disk.asked(), [Asked::Write(0, 512), Asked::Flush]);
    case.run(request::DISCARD, 0, &segment(0, 8, 0), 0);
    assert_eq!(disk.asked(), [Asked::Trim(0, 4096), Asked::Flush]);
    case.run(request::WRITE_ZEROES, 0, &segment(0, 8, 0), 0);
    assert_eq!(disk.asked(), [Asked::Zero(0, 4096, Space::Allocated), Asked::Flush]);
    case.run(request::FLUSH, 0, &[], 0);
    assert_eq!(disk.asked(), [Asked::Flush]);
    case.run(request::IN, 0, &[], 512);
    assert_eq!(disk.asked(), []);
}

#[test]
fn discards_have_up_to_their_segments_and_no_flag() {
    let (disk, guest) = (TestDisk::new(MIB), Guest::new(8));
    let case = Case::of(&disk, &guest);
    let run = |out: &[u8]| case.run(request::DISCARD, 0, out, 0).0;
    let two = [segment(8, 8, 0), segment(64, 1, 0)].concat();
    assert_eq!(run(&two), Status::Ok);
    assert_eq!(disk.asked(), [Asked::Trim(4096, 4096), Asked::Trim(32768, 512)]);
    assert_eq!(run(&segment(0, 1, 0).repeat(MAX_DISCARD_SEGMENTS)), Status::Ok);
    disk.asked();
    let cases = [
        (vec![], Status::Unsupported),
        (segment(0, 1, 0)[..15].to_vec(), Status::Unsupported),
        (segment(0, 1, 0).repeat(MAX_DISCARD_SEGMENTS + 1), Status::Unsupported),
        (segment(0, 8, 1), Status::Unsupported),
        (segment(0, 8, 2), Status::Unsupported),
        (segment(2040, 9, 0), Status::IoError),
        (segment(u64::MAX, 1, 0), Status::IoError),
        (segment(0, u32::MAX, 0), Status::IoError),
        ([segment(0, 8, 0), segment(2048, 1, 0)].concat(), Status::IoError),
    ];
    for (out, status) in cases {
        assert_eq!(run(&out), status, "{out:?}");
        assert_eq!(disk.asked(), [], "nothing is touched before all is checked: {out:?}");
    }
}

#[test]
fn zeroes_keep_their_space_unless_the_guest_gives_it_up() {
    let (disk, guest) = (TestDisk::new(MIB), Guest::new(8));
    let case = Case::of(&disk, &guest);
    let run = |out: &[u8]| case.run(request::WRITE_ZEROES, 0, out, 0).0;
    assert_eq!(run(&segment(8, 8, 0)), Status::Ok);
    assert_eq!(run(&segment(8, 8, 1)), Status::Ok);
    let zero = |space| Asked::Zero(4096, 4096, space);
    assert_eq!(disk.asked(), [zero(Space::Allocated), zero(Space::MayHaveHoles)]);
    assert_eq!(run(&segment(8, 8, 3)), Status::Unsupported);
    assert_eq!(run(&segment(8, 8, 0).repeat(2)), Status::Unsupported);
    assert_eq!(run(&segment(0, MAX_ZERO_SECTORS + 1, 0)), Status::IoError);
    assert_eq!(run(&segment(2048, 1, 1)), Status::IoError);
    assert_eq!(disk.asked(), []);
}

#[test]
fn limits_are_checked_by_themselves() {
    // On a disk that the range alone would fit.
    let (disk, guest) = (TestDisk::claiming(512 << 20), Guest::new(8));
    let case = Case::of(&disk, &guest);
    let zero = |sectors| case.run(request::WRITE_ZEROES, 0, &segment(0, sectors, 1), 0).0;
    assert_eq!(zero(MAX_ZERO_SECTORS), Status::Ok);
    assert_eq!(zero(MAX_ZERO_SECTORS + 1), Status::IoError);
}

#[test]
fn the_identity_is_cut_to_what_the_guest_has_room_for() {
    let (disk, guest) = (TestDisk::new(MIB), Guest::new(8));
    let case = Case::of(&disk, &guest);
    assert_eq!(case.run(request::GET_ID, 0, &[], 20), (Status::Ok, 20));
    assert_eq!(guest.read(DATA, 20), b"0123456789abcdefghij");
    guest.write(DATA, &[0; 64]);
    assert_eq!(case.run(request::GET_ID, 0, &[], 3), (Status::Ok, 3));
    assert_eq!(guest.read(DATA, 5), b"012\0\0");
    assert_eq!(case.run(request::GET_ID, 0, &[], 64), (Status::Ok, 20));
    assert_eq!(guest.read(DATA + 19, 2), b"j\0");
    assert_eq!(case.run(request::GET_ID, 0, &[], 0), (Status::Ok, 0));
}

#[test]
fn what_is_unknown_is_unsupported_and_a_read_only_disk_stays_as_it_is() {
    let guest = Guest::new(8);
    let disk = TestDisk::read_only(MIB);
    let case = Case::of(&disk, &guest);
    for kind in [2, 3, 5, 7, 9, 10, 12, 14, 15, u32::MAX] {
        assert_eq!(case.run(kind, 0, &[], 512), (Status::Unsupported, 0), "{kind}");
    }
    assert_eq!(case.run(request::OUT, 0, &[0; 512], 0).0, Status::IoError);
    assert_eq!(case.run(request::DISCARD, 0, &segment(0, 8, 0), 0).0, Status::IoError);
    assert_eq!(case.run(request::WRITE_ZEROES, 0, &segment(0, 8, 0), 0).0, Status::IoError);
    assert_eq!(case.run(request::FLUSH, 0, &[], 0).0, Status::Ok);
    assert_eq!(case.run(request::IN, 0, &[], 512).0, Status::Ok);
}

#[test]
fn a_disk_that_fails_is_an_error_for_the_guest() {
    let (disk, guest) = (TestDisk::failing(MIB), Guest::new(8));
    let case = Case::of(&disk, &guest);
    assert_eq!(case.run(request::IN, 0, &[], 512), (Status::IoError, 0));
    assert_eq!(case.run(request::OUT, 0, &[0; 512], 0), (Status::IoError, 0));
    assert_eq!(case.run(request::FLUSH, 0, &[], 0), (Status::IoError, 0));
}

#[test]
fn what_is_written_to_the_guest_is_logged_and_nothing_else() {
    let (disk, guest) = (TestDisk::new(MIB), Guest::new(8));
    let log = DirtyLog::new(Shared::new(memory_file(4096), 0, 4096).unwrap());
    let case = Case { log: Some(&log), ..Case::of(&disk, &guest) };
    case.run(request::OUT, 0, &[0; 4096], 0);
    let marked = || (0..256).filter(|page| log.has(*page)).collect::<Vec<_>>();
    assert!(marked().is_empty());
    case.run(request::IN, 0, &[], 8192);
    assert_eq!(marked(), [DATA / 4096, DATA / 4096 + 1]);
    case.run(request::GET_ID, 0, &[], 20);
    assert_eq!(marked(), [DATA / 4096, DATA / 4096 + 1]);
}

#[test]
fn a_request_needs_a_head_and_a_status() {
    let guest = Guest::new(8);
    let parse = |readable: u32, writable: u32| {
        let piece = |len| if len == 0 { vec![] } else { vec![Piece { at: DATA, len }] };
        let mut chain = Chain { readable: piece(readable), writable: piece(writable) };
        Parsed::parse(&mut chain, &guest.memory)
    };
    for len in [0, 1, 15] {
        assert!(matches!(parse(len, 1), Err(RequestError::NoHead)), "{len}");
    }
    assert!(matches!(parse(16, 0), Err(RequestError::NoStatus)));
    parse(16, 1).unwrap();
}
