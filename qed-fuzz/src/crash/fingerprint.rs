//! Names for the states of a crash point, had without building them: one of all that a state
//! holds, one of what a recovery reads of it.

use super::regions::{Region, Regions};
use super::states::{Choice, CrashPoint};
use crate::sparse::{SECTOR, Sector};

/// What a state is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Of all of it.
    pub(crate) whole: u64,
    /// Of its metadata and its length: states that differ in guest data alone are one.
    pub(crate) metadata: u64,
}

/// The parts that fingerprints of one crash point are made of. They are joined by exclusive or, so
/// that one part can be put in the place of another.
pub(crate) struct Fingerprints<'a> {
    point: &'a CrashPoint,
    /// Of the durable sectors, for each length.
    durable: Vec<Fingerprint>,
    /// For each sector that was written, whether it is metadata, and its versions.
    sectors: Vec<(bool, Vec<u64>)>,
}

impl<'a> Fingerprints<'a> {
    pub(crate) fn new(point: &'a CrashPoint, regions: &Regions) -> Self {
        let of_len = |len: &u64| {
            let mut sum = Fingerprint { whole: mix(*len), metadata: mix(*len) };
            for number in point.durable.held_sectors().filter(|number| number * SECTOR < *len) {
                let part = of_sector(number, &point.durable.sector(number));
                sum.add(part, regions.region(number) != Region::Data);
            }
            sum
        };
        let of_versions = |(number, versions): &(u64, Vec<Sector>)| {
            let parts = versions.iter().map(|version| of_sector(*number, version));
            (regions.region(*number) != Region::Data, parts.collect())
        };
        Self {
            point,
            durable: point.lens.iter().map(of_len).collect(),
            sectors: point.sectors.iter().map(of_versions).collect(),
        }
    }

    /// Whether a sector that was written is metadata; they are counted as in the crash point.
    pub(crate) fn is_metadata(&self, sector: usize) -> bool {
        self.sectors[sector].0
    }

    pub(crate) fn of(&self, choice: &Choice) -> Fingerprint {
        let len = choice[choice.len() - 1];
        let mut sum = self.durable[len];
        let numbers = self.point.sectors.iter().map(|(number, _)| number);
        for ((number, (is_metadata, parts)), version) in numbers.zip(&self.sectors).zip(choice) {
            if *version > 0 && number * SECTOR < self.point.lens[len] {
                // The durable version is zeros where the durable length ends before it.
                sum.add(parts[0] ^ parts[*version], *is_metadata);
            }
        }
        sum
    }
}

impl Fingerprint {
    fn add(&mut self, part: u64, is_metadata: bool) {
        self.whole ^= part;
        if is_metadata {
            self.metadata ^= part;
        }
    }
}

/// 0 for zeros, so that a sector that is not there counts as one of zeros.
fn of_sector(number: u64, sector: &Sector) -> u64 {
    let (chunks, _) = sector.as_chunks::<8>();
    let words = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk));
    let (any, sum) = words.fold((0, number + 1), |(any, sum), word| {
        (any | word, (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    });
    if any == 0 { 0 } else { mix(sum) }
}

/// Spreads a number over all bits.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
