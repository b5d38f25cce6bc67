//! The bytes of a pending log: what a process that dies leaves of the changes that no flush had taken.
//!
//! The log never leaves its host, and lies in memory that the next process maps, so its structures are
//! words of eight bytes, each one store. Knows nothing of files, of mappings and of what a log is good
//! for: docs/write-ordering.md says that.

use crate::addr::GuestCluster;
use crate::crc::crc32c_of_words;
use crate::geometry::Geometry;

/// Bytes of the header, before the first slot.
pub const PENDING_HEADER_LEN_BYTES: usize = 4096;

/// Words of one slot.
pub const PENDING_SLOT_WORDS: usize = 8;

/// Words of the header that are written once; those that change have a line of 64 bytes each.
pub const PENDING_BINDING_WORDS: usize = 16;

/// `QEDP`, and version 1.
const MAGIC_AND_VERSION: u64 = 0x0000_0001_5044_4551;

/// A word of the header that changes while the log is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingWord {
    /// Number of the first record that may not be home.
    Tail,
    /// Bytes that the image file has at the most.
    FileLen,
    /// Generation of the superblock that was written last, or is about to be; 0 while it is not known.
    Generation,
    /// 1 after a flush that failed: records may be missing.
    Stopped,
}

/// What a log is bound to: the file, the host and its boot, and the owner that the image names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingBinding {
    /// Slots behind the header.
    pub slots: u32,
    /// Random; seeds the checksum of each slot, so that a record of an older log is none.
    pub salt: [u64; 2],
    /// Of the superblock; zeros where the image has none.
    pub uuid: [u8; 16],
    /// Of the boot of the host that wrote the log.
    pub boot_id: [u8; 16],
    /// Of the section OWNER; 0 where the image has no superblock.
    pub token: u64,
    /// Which file it is: device and inode, or the number of a block device and 0.
    pub file: [u64; 2],
    /// When the file was made, seconds and nanoseconds; zeros where that is not known.
    pub birth: [u64; 2],
}

/// One record: entries of `count` guest clusters in a row, what they become and what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingRecord {
    /// The first cluster.
    pub guest: GuestCluster,
    /// Clusters; none is no record.
    pub count: u32,
    /// The first entry from now on; [`entry_in_row`] gives the others.
    pub value: u64,
    /// The first entry before, the others likewise.
    pub was: u64,
}

/// The entry `index` places behind `first`, in a row of entries that follow one rule: all 0, all 1, or
/// one cluster behind the other.
#[must_use]
pub const fn entry_in_row(first: u64, index: u64, geometry: Geometry) -> u64 {
    match first {
        0 | 1 => first,
        _ => first.wrapping_add(index.wrapping_mul(geometry.cluster_size_bytes())),
    }
}

impl PendingWord {
    /// Number of the word in the header.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Tail => 16,
            Self::FileLen => 24,
            Self::Generation => 32,
            Self::Stopped => 40,
        }
    }
}

impl PendingBinding {
    /// The words that [`PendingBinding::parse`] reads.
    #[must_use]
    pub fn encode(&self) -> [u64; PENDING_BINDING_WORDS] {
        let mut words = self.without_checksum();
        words[1] = u64::from(crc32c_of_words(&words)) | u64::from(self.slots) << 32;
        words
    }

    /// Reads what a log is bound to; none if it is no log of this version, or its words were not all
    /// written.
    #[must_use]
    pub fn parse(words: &[u64; PENDING_BINDING_WORDS]) -> Option<Self> {
        let [magic, lengths, a, b, c, d, e, f, token, device, inode, secs, nanos, ..] = *words;
        let found = Self {
            slots: high(lengths),
            salt: [a, b],
            uuid: bytes_of([c, d]),
            boot_id: bytes_of([e, f]),
            token,
            file: [device, inode],
            birth: [secs, nanos],
        };
        (magic == MAGIC_AND_VERSION && found.encode() == *words).then_some(found)
    }

    fn without_checksum(&self) -> [u64; PENDING_BINDING_WORDS] {
        let ([c, d], [e, f]) = (words_of(self.uuid), words_of(self.boot_id));
        let ([a, b], [device, inode], [secs, nanos]) = (self.salt, self.file, self.birth);
        let lengths = u64::from(self.slots) << 32;
        let token = self.token;
        [MAGIC_AND_VERSION, lengths, a, b, c, d, e, f, token, device, inode, secs, nanos, 0, 0, 0]
    }
}

impl PendingRecord {
    /// The words of a slot; the last of them, the number, makes the others count and is stored last.
    #[must_use]
    pub fn encode(&self, salt: [u64; 2], number: u64) -> [u64; PENDING_SLOT_WORDS] {
        let Self { guest, count, value, was } = *self;
        let body = [guest.get(), value, was, u64::from(count)];
        let [guest, value, was, count] = body;
        [guest, value, was, count, 0, 0, u64::from(checksum(salt, body, number)), number]
    }

    /// Reads a slot; none where it does not hold the record with this number.
    #[must_use]
    pub fn parse(words: &[u64; PENDING_SLOT_WORDS], salt: [u64; 2], number: u64) -> Option<Self> {
        let [guest, value, was, count, ..] = *words;
        let guest = GuestCluster::new(guest);
        let record = Self { guest, count: u32::try_from(count).ok()?, value, was };
        (record.count > 0 && record.encode(salt, number) == *words).then_some(record)
    }
}

/// Of salt, the 48 bytes before the checksum, and the number.
fn checksum([a, b]: [u64; 2], [guest, value, was, count]: [u64; 4], number: u64) -> u32 {
    crc32c_of_words(&[a, b, guest, value, was, count, 0, 0, number])
}

const fn high(word: u64) -> u32 {
    let [_, _, _, _, a, b, c, d] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn words_of(bytes: [u8; 16]) -> [u64; 2] {
    let all = u128::from_le_bytes(bytes).to_le_bytes();
    let [a, b, c, d, e, f, g, h, rest @ ..] = all;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest)]
}

fn bytes_of([low, high]: [u64; 2]) -> [u8; 16] {
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: PendingBinding = PendingBinding {
        slots: 65472,
        salt: [7, 8],
        uuid: *b"0123456789abcdef",
        boot_id: *b"fedcba9876543210",
        token: 5,
        file: [1, 2],
        birth: [3, 4],
    };

    #[test]
    fn a_binding_reads_back_and_no_word_of_it_can_change() {
        let words = BINDING.encode();
        assert_eq!(PendingBinding::parse(&words), Some(BINDING));
        assert_eq!(words[0].to_le_bytes(), *b"QEDP\x01\0\0\0");
        for index in 0..words.len() {
            let mut other = words;
            *other.get_mut(index).unwrap() ^= 1 << 40;
            assert_eq!(PendingBinding::parse(&other), None, "word {index}");
        }
    }

    #[test]
    fn a_record_counts_under_its_number_and_salt_alone() {
        let record = PendingRecord { guest: GuestCluster::new(9), count: 3, value: 65536, was: 1 };
        let words = record.encode([7, 8], 11);
        assert_eq!(PendingRecord::parse(&words, [7, 8], 11), Some(record));
        assert_eq!(PendingRecord::parse(&words, [7, 8], 12), None);
        assert_eq!(PendingRecord::parse(&words, [7, 9], 11), None);
        for index in 0..words.len() {
            let mut other = words;
            *other.get_mut(index).unwrap() ^= 1 << 40;
            assert_eq!(PendingRecord::parse(&other, [7, 8], 11), None, "word {index}");
        }
        assert_eq!(PendingRecord::parse(&[0; 8], [0, 0], 0), None, "nothing was written");
    }
}
