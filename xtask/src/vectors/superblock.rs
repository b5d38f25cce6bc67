//! Every pair of copies of the superblock, and a copy with each byte of its fields damaged.

use std::ops::Range;

use super::crc::crc32c;
use super::vector::{Bytes, Expect, Family, Header, Qemu, Run, Superblock, Vector};

pub(super) fn families() -> Vec<Family> {
    let pairs = COPIES.iter().flat_map(|a| COPIES.iter().map(|b| pair(*a, *b)));
    let (accepted, refused) = pairs.partition(|vector: &Vector| vector.expect.write.is_none());
    vec![
        Family {
            name: "superblock-pair-accept",
            about: &[
                "Every state of copy A with every state of copy B where one of them, or none, is current.",
            ],
            vectors: accepted,
        },
        Family {
            name: "superblock-pair-reject",
            about: &["The pairs that keep the image from being written."],
            vectors: refused,
        },
        Family {
            name: "superblock-damage-bytes-accept",
            about: &[
                "Copy A with one bit of each byte of its fields flipped, and of some behind them.",
            ],
            vectors: (0..FIELDS).chain([48, 49, 511, 512, 2048, 4094, 4095]).map(damaged).collect(),
        },
    ]
}

/// Where the copies lie.
const A: u64 = 8192;
const B: u64 = 12288;
/// Bytes of a copy before its sections.
const FIELDS: usize = 48;

/// A state of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    /// Zeros.
    Absent,
    /// Generation 4.
    Old,
    /// Generation 5.
    New,
    /// Generation 5 too, with another epoch.
    Other,
    /// Generation 6, with a checksum that is off by a bit.
    Torn,
    /// Version 2.
    Later,
}

const COPIES: [Copy; 6] =
    [Copy::Absent, Copy::Old, Copy::New, Copy::Other, Copy::Torn, Copy::Later];

impl Copy {
    fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Old => "old",
            Self::New => "new",
            Self::Other => "other",
            Self::Torn => "torn",
            Self::Later => "later",
        }
    }

    /// The generation of a valid copy.
    fn generation(self) -> Option<u64> {
        match self {
            Self::Old => Some(4),
            Self::New | Self::Other => Some(5),
            Self::Absent | Self::Torn | Self::Later => None,
        }
    }

    fn block(self) -> Option<Block> {
        let (version, generation, epoch) = match self {
            Self::Absent => return None,
            Self::Old => (1, 4, 0),
            Self::New => (1, 5, 0),
            Self::Other => (1, 5, 1),
            Self::Torn => (1, 6, 0),
            Self::Later => (2, 5, 0),
        };
        Some(Block { version, generation, epoch, wrong: u32::from(self == Self::Torn) })
    }
}

/// A copy without sections.
struct Block {
    version: u32,
    generation: u64,
    epoch: u64,
    /// Bits of the checksum that are flipped.
    wrong: u32,
}

impl Block {
    fn bytes(&self, crc: u32) -> Vec<u8> {
        let mut bytes = b"QEDX".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(crc.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(self.epoch.to_le_bytes());
        bytes.resize(4096, 0);
        bytes
    }

    fn crc(&self) -> u32 {
        crc32c(&self.bytes(0)) ^ self.wrong
    }

    fn runs(&self, at: u64) -> Vec<Run> {
        let mut runs = vec![
            Run { at, bytes: Bytes::Text("QEDX".to_owned()) },
            Run { at: at + 4, bytes: Bytes::U32(vec![self.version, self.crc(), 0]) },
            Run::u64(at + 16, self.generation),
        ];
        runs.extend((self.epoch > 0).then(|| Run::u64(at + 40, self.epoch)));
        runs
    }
}

fn pair(a: Copy, b: Copy) -> Vector {
    let is_later = a == Copy::Later || b == Copy::Later;
    let (clause, current) = match (a.generation(), b.generation()) {
        _ if is_later => ("QED-SB-04", "refused"),
        (None, None) => ("QED-SB-10", "none"),
        (Some(_), None) => ("QED-SB-10", "a"),
        (None, Some(_)) => ("QED-SB-10", "b"),
        (Some(first), Some(second)) if first != second => {
            ("QED-SB-10", if first > second { "a" } else { "b" })
        }
        _ if a == b => ("QED-SB-10", "a"),
        _ => ("QED-SB-10", "refused"),
    };
    let generation = match current {
        "a" => a.generation(),
        "b" => b.generation(),
        _ => None,
    };
    let runs = [(A, a), (B, b)].map(|(at, copy)| copy.block().map(|block| block.runs(at)));
    Vector {
        name: format!("sb-pair-{}-{}", a.name(), b.name()),
        clauses: vec![clause],
        what: format!("A is {}, B is {}", a.name(), b.name()),
        runs: runs.into_iter().flatten().flatten().collect(),
        expect: Expect {
            write: (current == "refused").then_some(Err(clause)),
            ..expect(current, generation)
        },
        qemu: (current == "refused").then(|| {
            Qemu::answers("write", "accept", "QED-QEMU-27: superblocks are not looked at")
        }),
        ..image()
    }
}

fn damaged(byte: usize) -> Vector {
    let newer = Block { version: 1, generation: 2, epoch: 0, wrong: 0 };
    let older = Block { version: 1, generation: 1, epoch: 0, wrong: 0 };
    let bit = byte % 8;
    let mut copy = newer.bytes(newer.crc());
    copy[byte] ^= 1 << bit;
    let mut runs = vec![hex(&copy, 0..FIELDS)];
    runs.extend((byte >= FIELDS).then(|| hex(&copy, byte..byte + 1)));
    runs.extend(older.runs(B));
    Vector {
        name: format!("sb-damaged-byte-{byte}"),
        clauses: vec![if byte < 4 { "QED-SB-02" } else { "QED-SB-03" }],
        what: format!("bit {bit} of byte {byte} of copy A is flipped; B is older and whole"),
        runs,
        expect: expect("b", Some(1)),
        ..image()
    }
}

/// These bytes of copy A.
fn hex(copy: &[u8], bytes: Range<usize>) -> Run {
    let at = A + u64::try_from(bytes.start).expect("inside a copy");
    Run { at, bytes: Bytes::Hex(copy[bytes].to_vec()) }
}

/// A sound image to lay superblocks into.
fn image() -> Vector {
    Vector {
        name: String::new(),
        clauses: Vec::new(),
        what: String::new(),
        file_len: 0x5_0000,
        header: Header::default(),
        runs: Vec::new(),
        expect: Expect::accept(),
        qemu: None,
    }
}

fn expect(current: &'static str, generation: Option<u64>) -> Expect {
    Expect {
        check: Some("clean"),
        superblock: Some(Superblock { current, generation }),
        ..Expect::accept()
    }
}
