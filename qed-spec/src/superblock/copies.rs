//! The two copies of the superblock: where they lie, which one is current, which one is written
//! next. Knows nothing of sections.

use core::fmt;

use crate::addr::HostOffset;
use crate::header::Header;
use crate::raw::SUPERBLOCK_LEN_BYTES;
use crate::superblock::error::{ChooseError, SuperblockError};
use crate::superblock::{Generation, Superblock};

/// One of the two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuperblockCopy {
    /// The copy at byte 8192 of the header area.
    A,
    /// The copy at byte 12288 of the header area.
    B,
}

/// The current superblock of an image, chosen from its two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperblockChoice<'a> {
    a: Result<Superblock<'a>, SuperblockError>,
    b: Result<Superblock<'a>, SuperblockError>,
    winner: Option<SuperblockCopy>,
}

impl SuperblockCopy {
    /// Where the copy lies in an image whose header area holds both.
    // spec: QED-SB-01
    #[must_use]
    pub const fn offset(self) -> HostOffset {
        match self {
            Self::A => HostOffset::new(8192),
            Self::B => HostOffset::new(12288),
        }
    }

    /// The other copy.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Whether an image with this header has room for both copies: they lie inside the header
    /// area and the backing file name is elsewhere. Without room neither is read.
    // spec: QED-SB-01
    #[must_use]
    pub fn both_fit(header: &Header) -> bool {
        let (start, end) = (Self::A.offset().get(), PAIR_END_BYTES);
        header.header_area_len_bytes() >= end && !header.backing_name_overlaps(start, end)
    }
}

impl<'a> SuperblockChoice<'a> {
    /// Chooses between the bytes of copy A and those of copy B.
    ///
    /// The valid copy wins, of two valid ones that with the higher generation; none wins where
    /// none is valid.
    ///
    /// # Errors
    /// Two valid copies that differ in nothing but their content, or a copy that only a later
    /// version of this crate understands. Such an image is not written, and its extensions are
    /// not believed.
    // spec: QED-SB-04, QED-SB-10
    pub fn new(a: &'a [u8], b: &'a [u8]) -> Result<Self, ChooseError> {
        let (parsed_a, parsed_b) = (Superblock::parse(a), Superblock::parse(b));
        for (copy, parsed) in [(SuperblockCopy::A, &parsed_a), (SuperblockCopy::B, &parsed_b)] {
            if let Err(SuperblockError::Version { found }) = parsed {
                return Err(ChooseError::Version { copy, version: *found });
            }
        }
        let winner = match (&parsed_a, &parsed_b) {
            (Ok(a), Ok(b)) if a.generation() == b.generation() && a != b => {
                return Err(ChooseError::Conflict { generation: a.generation() });
            }
            (Ok(a), Ok(b)) if b.generation() > a.generation() => Some(SuperblockCopy::B),
            (Ok(_), _) => Some(SuperblockCopy::A),
            (Err(_), Ok(_)) => Some(SuperblockCopy::B),
            (Err(_), Err(_)) => None,
        };
        Ok(Self { a: parsed_a, b: parsed_b, winner })
    }

    /// The current superblock and the copy it is in; none where neither copy is valid.
    #[must_use]
    pub fn current(&self) -> Option<(SuperblockCopy, Superblock<'a>)> {
        let copy = self.winner?;
        self.copy(copy).ok().map(|superblock| (copy, superblock))
    }

    /// What became of one copy.
    ///
    /// # Errors
    /// Why the copy is not valid.
    pub const fn copy(&self, copy: SuperblockCopy) -> Result<Superblock<'a>, SuperblockError> {
        match copy {
            SuperblockCopy::A => self.a,
            SuperblockCopy::B => self.b,
        }
    }

    /// The copy to write next, never the current one, and the generation it gets; none when the
    /// generations are used up.
    ///
    /// Before that write the current copy must be known to be durable: a crash may destroy the
    /// copy being written, and then the current one is all there is.
    // spec: QED-SB-11
    #[must_use]
    pub fn next_write(&self) -> Option<(SuperblockCopy, Generation)> {
        match self.current() {
            Some((copy, current)) => Some((copy.other(), current.generation().next()?)),
            None => Some((SuperblockCopy::A, Generation::FIRST)),
        }
    }
}

impl fmt::Display for SuperblockCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// Byte after the last of copy B.
#[expect(clippy::as_conversions, reason = "a constant")]
const PAIR_END_BYTES: u64 = SuperblockCopy::B.offset().get() + SUPERBLOCK_LEN_BYTES as u64;
