//! The one source of random numbers: SplitMix64, the same everywhere for the same seed.

use arbitrary::Unstructured;

/// Bytes that a seeded generator draws from; when they run out it draws zeros, which end lists.
const BYTES_PER_SEED: usize = 8 << 10;

/// An endless sequence of random numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// The next number, below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }
}

/// The input of a seed for a fuzz target. Most are short, since what matters comes first.
#[must_use]
pub fn random_input(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let longest = 64 << (2 * random.below(4));
    let words = random.below(longest) / 8;
    (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect()
}

/// What a generator makes of a seed: generators draw from bytes, so that a fuzzer can drive them,
/// and these are the bytes of a test.
///
/// # Panics
/// If the generator refuses bytes; those of this crate take any.
pub fn from_seed<T>(
    seed: u64,
    generate: impl FnOnce(&mut Unstructured<'_>) -> arbitrary::Result<T>,
) -> T {
    let mut random = Random::new(seed);
    let bytes: Vec<u8> =
        (0..BYTES_PER_SEED / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    generate(&mut Unstructured::new(&bytes)).expect("a generator takes any bytes")
}
