//! An endless stream of writes that a seed makes: what a program writes that is killed, and what may
//! be found afterwards.

use std::collections::HashMap;

use qed_core::{Image, ImageError, VirtualDisk};
use qed_spec::GuestOffset;

use super::guest::{Tag, content};
use crate::random::Random;
use crate::size::usize_of;
use crate::sparse::SECTOR;

/// Sectors of the longest write.
const LONGEST: u64 = 24;

/// Writes with numbers from 1, each with a content of its own.
#[derive(Debug, Clone, Copy)]
pub struct WriteStream {
    seed: u64,
    sectors: u64,
}

/// What a disk may hold on which a part of a stream was written.
#[derive(Debug)]
pub struct StreamDisk {
    stream: WriteStream,
    /// What each sector was found to hold: the number of a write, 0 for none.
    found: Vec<Tag>,
    /// Writes before this one are among those that were found or overwritten.
    next: Tag,
}

impl WriteStream {
    /// For a disk of so many bytes.
    #[must_use]
    pub const fn new(seed: u64, bytes: u64) -> Self {
        Self { seed, sectors: bytes / SECTOR }
    }

    /// Does one write.
    ///
    /// # Errors
    /// It failed.
    pub fn write(&self, image: &Image, number: u32) -> Result<(), ImageError> {
        let (first, count) = self.place(number);
        let bytes: Vec<u8> =
            (first..first + count).flat_map(|sector| content(number, sector)).collect();
        image.write_at(&bytes, GuestOffset::new(first * SECTOR))
    }

    /// First sector and number of sectors.
    fn place(&self, number: Tag) -> (u64, u64) {
        let mut random = Random::new(self.seed.wrapping_mul(0x1_0000_0000) ^ u64::from(number));
        let count = 1 + random.below(LONGEST);
        (random.below(self.sectors - count), count)
    }
}

impl StreamDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(stream: WriteStream) -> Self {
        Self { stream, found: vec![0; usize_of(stream.sectors)], next: 1 }
    }

    /// The number of the first write that was not asked for yet.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Holds an image against what its guest knows: writes before `acknowledged` were flushed, those
    /// from `asked` on were never asked for. What is found counts from then on.
    ///
    /// # Errors
    /// A sector that holds something else.
    ///
    /// # Panics
    /// If the image is smaller than the disk of the stream.
    pub fn check(
        &mut self,
        image: &dyn VirtualDisk,
        acknowledged: u32,
        asked: u32,
    ) -> Result<(), String> {
        let sectors = |(first, count): (u64, u64)| usize_of(first)..usize_of(first + count);
        for number in self.next..acknowledged {
            self.found[sectors(self.stream.place(number))].fill(number);
        }
        let mut perhaps: HashMap<usize, Vec<Tag>> = HashMap::new();
        for number in acknowledged.max(self.next)..asked {
            for sector in sectors(self.stream.place(number)) {
                perhaps.entry(sector).or_default().push(number);
            }
        }
        let mut bytes = vec![0; usize_of(self.stream.sectors * SECTOR)];
        image.read_at(&mut bytes, 0).map_err(|error| error.to_string())?;
        for (number, bytes) in bytes.chunks_exact(usize_of(SECTOR)).enumerate() {
            let word = u64::from_le_bytes(*bytes.first_chunk().expect("a sector has eight bytes"));
            let tag = Tag::try_from(word >> 32).expect("32 bits");
            let is_allowed = tag == self.found[number]
                || perhaps.get(&number).is_some_and(|tags| tags.contains(&tag));
            if !is_allowed || content(tag, number as u64)[..] != *bytes {
                let expected = self.found[number];
                return Err(format!("sector {number} holds {word:#x}, not write {expected}"));
            }
            self.found[number] = tag;
        }
        self.next = asked;
        Ok(())
    }
}
