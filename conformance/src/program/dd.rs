//! Which blocks `dd` has to copy for a place of the disk, and where the place lies in the copy.

use crate::vector::Content;

/// The blocks that have a place of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Bytes of a block.
    size: u64,
    /// Number of the first block.
    first: u64,
    /// How many there are.
    count: u64,
    /// Byte of the copy at which the place begins.
    from: u64,
    /// Bytes of the place.
    len: u64,
}

/// Where `count` of a `dd` begins to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CountFrom {
    /// At the start of the disk, as qemu-img does.
    Start,
    /// Behind what is skipped.
    Skip,
}

/// Disks are made of these.
const SECTOR: u64 = 512;
/// Blocks are not longer.
const MAX_BLOCK: u64 = 1 << 20;

impl Blocks {
    pub(super) fn of(place: &Content) -> Self {
        let len = place.bytes.len();
        let (start, end) = (place.at / SECTOR * SECTOR, (place.at + len).next_multiple_of(SECTOR));
        // The largest power of two that both ends are multiples of.
        let size = (1 << (start | end).trailing_zeros()).min(MAX_BLOCK);
        let (first, count) = (start / size, (end - start) / size);
        Self { size, first, count, from: place.at - start, len }
    }

    /// Bytes of the copy.
    pub(super) fn copied(&self) -> u64 {
        self.count * self.size
    }

    /// The operands of `dd` beside the names of the files.
    pub(super) fn operands(&self, from: CountFrom) -> [String; 3] {
        let count = match from {
            CountFrom::Start => self.first + self.count,
            CountFrom::Skip => self.count,
        };
        [format!("bs={}", self.size), format!("skip={}", self.first), format!("count={count}")]
    }

    /// The place in the copy; none if that is too short.
    pub(super) fn place<'a>(&self, copy: &'a [u8]) -> Option<&'a [u8]> {
        let from = usize::try_from(self.from).ok()?;
        copy.get(from..)?.get(..usize::try_from(self.len).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::ContentBytes;

    #[track_caller]
    fn check(at: u64, len: u64, operands: [&str; 3], from: u64) {
        let blocks = Blocks::of(&Content { at, bytes: ContentBytes::Fail { len } });
        assert_eq!(blocks.operands(CountFrom::Start), operands);
        assert_eq!(blocks.from, from);
        let copy: Vec<u8> = (0..blocks.copied()).map(|byte| (byte % 251) as u8).collect();
        let place = blocks.place(&copy).unwrap();
        assert_eq!((place.len() as u64, u64::from(place[0])), (len, from % 251));
        assert_eq!(blocks.place(&copy[..copy.len() - 512]), None);
    }

    #[test]
    fn blocks_are_as_large_as_the_place_allows() {
        check(0, 512, ["bs=512", "skip=0", "count=1"], 0);
        check(65536, 65536, ["bs=65536", "skip=1", "count=2"], 0);
        check(65528, 9, ["bs=512", "skip=127", "count=129"], 504);
        check(1 << 21, 1 << 21, ["bs=1048576", "skip=2", "count=4"], 0);
        let last = (1 << 63) - 1024;
        let skip = format!("skip={}", last / 512);
        check(last, 512, ["bs=512", &skip, &format!("count={}", last / 512 + 1)], 0);
    }

    #[test]
    fn a_count_from_the_skip_is_of_the_blocks_alone() {
        let place = Content { at: 65536, bytes: ContentBytes::Fail { len: 512 } };
        let operands = Blocks::of(&place).operands(CountFrom::Skip);
        assert_eq!(operands, ["bs=512", "skip=128", "count=1"]);
    }
}
