//! Sizes as indices: everything here fits in memory, so an offset in it fits in a `usize`.

/// The number as an index or a length in memory.
///
/// # Panics
/// On a target whose `usize` has less than 64 bits; there is none.
pub(crate) fn usize_of(value: u64) -> usize {
    usize::try_from(value).expect("usize has 64 bits on every supported target")
}
