//! Two copies: which is current, which is written next, and that no crash loses both.

use qed_spec::{
    ChooseError, Features, Generation, HostOffset, SuperblockChoice, SuperblockCopy,
    SuperblockError,
};

use crate::image::header;
use crate::superblock::{builder, copy, sealed};
use SuperblockCopy::{A, B};

/// What a place on disk may hold.
#[derive(Debug, Clone, Copy)]
enum Held {
    Blank,
    Torn,
    Valid(u64),
    /// Of this generation, but with other content.
    Other(u64),
    Version(u32),
}
use Held::{Blank, Other, Torn, Valid, Version};

fn bytes(held: Held) -> Vec<u8> {
    match held {
        Blank => vec![0; 4096],
        Torn => {
            let mut torn = copy(900).to_vec();
            torn[600] ^= 1;
            torn
        }
        Valid(generation) => copy(generation).to_vec(),
        Other(generation) => {
            let mut other = builder();
            other.set_epoch(qed_spec::Epoch::new(1));
            other.encode(Generation::new(generation).expect("not zero")).to_vec()
        }
        Version(version) => sealed(version, 1, 0, &[]),
    }
}

type Outcome = Result<(Option<(SuperblockCopy, u64)>, Option<(SuperblockCopy, u64)>), ChooseError>;

/// The current copy with its generation, and the next write with its.
fn choose(a: Held, b: Held) -> Outcome {
    let (a, b) = (bytes(a), bytes(b));
    let choice = SuperblockChoice::new(&a, &b)?;
    let current = choice.current().map(|(copy, block)| (copy, block.generation().get()));
    let next = choice.next_write().map(|(copy, generation)| (copy, generation.get()));
    Ok((current, next))
}

// spec-test: QED-SB-04, QED-SB-10, QED-SB-11
#[test]
fn the_choice_table() {
    let conflict =
        |number| ChooseError::Conflict { generation: Generation::new(number).expect("not zero") };
    let version = |copy, version| Err(ChooseError::Version { copy, version });
    let first = Ok((None, Some((A, 1))));
    let cases: [(Held, Held, Outcome); 20] = [
        (Blank, Blank, first),
        (Blank, Torn, first),
        (Torn, Torn, first),
        (Valid(1), Blank, Ok((Some((A, 1)), Some((B, 2))))),
        (Blank, Valid(1), Ok((Some((B, 1)), Some((A, 2))))),
        (Valid(4), Torn, Ok((Some((A, 4)), Some((B, 5))))),
        (Torn, Valid(4), Ok((Some((B, 4)), Some((A, 5))))),
        (Valid(4), Valid(5), Ok((Some((B, 5)), Some((A, 6))))),
        (Valid(6), Valid(5), Ok((Some((A, 6)), Some((B, 7))))),
        (Valid(1), Valid(u64::MAX), Ok((Some((B, u64::MAX)), None))),
        (Valid(u64::MAX), Torn, Ok((Some((A, u64::MAX)), None))),
        (Valid(5), Valid(5), Ok((Some((A, 5)), Some((B, 6))))),
        (Valid(5), Other(5), Err(conflict(5))),
        (Other(5), Valid(5), Err(conflict(5))),
        (Other(6), Valid(5), Ok((Some((A, 6)), Some((B, 7))))),
        (Version(2), Valid(5), version(A, 2)),
        (Valid(5), Version(2), version(B, 2)),
        (Blank, Version(9), version(B, 9)),
        (Torn, Version(0), version(B, 0)),
        (Version(3), Version(2), version(A, 3)),
    ];
    for (a, b, expected) in cases {
        assert_eq!(choose(a, b), expected, "A {a:?}, B {b:?}");
    }
}

#[test]
fn each_copy_says_why_it_was_not_taken() {
    let (a, b) = (bytes(Blank), bytes(Valid(2)));
    let choice = SuperblockChoice::new(&a, &b).expect("one is valid");
    assert_eq!(choice.copy(A).map(|_| ()), Err(SuperblockError::Magic { found: [0; 4] }));
    assert_eq!(choice.copy(B).map(|block| block.generation().get()), Ok(2));
}

// spec-test: QED-SB-11, QED-DISK-01
#[test]
fn a_crash_at_any_write_leaves_the_last_durable_superblock_or_the_new_one() {
    let mut disk = [bytes(Blank), bytes(Blank)];
    let slot = |copy| usize::from(copy == B);
    for generation in 1..=6_u64 {
        let choice = SuperblockChoice::new(&disk[0], &disk[1]).expect("no conflict");
        let durable = choice.current().map_or(0, |(_, block)| block.generation().get());
        let (target, next) = choice.next_write().expect("numbers are left");
        assert_eq!((durable, next.get()), (generation - 1, generation));
        let new = builder().encode(next);
        for kept in 0_u32..256 {
            let mut crashed = disk.clone();
            for sector in (0..8).filter(|sector| kept >> sector & 1 == 1) {
                let range = sector * 512..(sector + 1) * 512;
                crashed[slot(target)][range.clone()].copy_from_slice(&new[range]);
            }
            let choice = SuperblockChoice::new(&crashed[0], &crashed[1]).expect("no conflict");
            let found = choice.current().map_or(0, |(_, block)| block.generation().get());
            assert!([durable, generation].contains(&found), "{kept:08b}: {found}");
            assert!(kept != 255 || found == generation);
        }
        disk[slot(target)] = new.to_vec();
    }
}

// spec-test: QED-SB-01
#[test]
fn the_copies_need_room_that_the_backing_name_leaves() {
    assert_eq!((A.offset(), B.offset()), (HostOffset::new(8192), HostOffset::new(12288)));
    assert_eq!((A.other(), B.other()), (B, A));
    let cases = [
        (4096, 1, None, false),
        (4096, 3, None, false),
        (4096, 4, None, true),
        (8192, 1, None, false),
        (8192, 2, None, true),
        (16384, 1, None, true),
        (65536, 1, None, true),
        (65536, 1, Some((64, 4095)), true),
        (65536, 1, Some((4097, 4095)), true),
        (65536, 1, Some((4098, 4095)), false),
        (65536, 1, Some((8192, 1)), false),
        (65536, 1, Some((16383, 1)), false),
        (65536, 1, Some((16384, 4095)), true),
    ];
    for (cluster_size, header_size, name, expected) in cases {
        let header = header(cluster_size, header_size, Features::empty(), name);
        let found = SuperblockCopy::both_fit(&header);
        assert_eq!(found, expected, "{header_size} clusters of {cluster_size}, name {name:?}");
    }
}
