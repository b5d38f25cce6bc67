//! Finding zeros in buffers: the question that every sparse copy asks of every byte.
//!
//! Knows nothing of images; works on slices.

use std::ops::Range;

/// Bytes folded together before the result is looked at, so that the compiler uses wide registers.
const FOLD_LEN: usize = 128;

/// Whether every byte is zero; true for no bytes.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (folds, rest) = bytes.as_chunks::<FOLD_LEN>();
    folds.iter().all(|fold| fold_or(fold) == 0) && rest.iter().all(|byte| *byte == 0)
}

fn fold_or(fold: &[u8; FOLD_LEN]) -> u64 {
    let (words, _) = fold.as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum | u64::from_ne_bytes(*word))
}

/// Appends to `runs` the runs of `bytes[within]` that hold data, in blocks of `block` bytes
/// counted from the start of `within`; a run that touches the last one in `runs` extends it.
///
/// A block counts as data when any byte of it is not zero.
pub(crate) fn find_data(
    bytes: &[u8],
    within: Range<usize>,
    block: usize,
    runs: &mut Vec<Range<usize>>,
) {
    let mut at = within.start;
    for block in bytes[within].chunks(block) {
        let end = at + block.len();
        if !is_zero(block) {
            extend(runs, at..end);
        }
        at = end;
    }
}

/// Appends `run`, or extends the last run if they touch.
pub(crate) fn extend(runs: &mut Vec<Range<usize>>, run: Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_found() {
        for len in [0, 1, 7, 127, 128, 129, 255, 256, 1000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes), "{len} zeros");
            for at in 0..len {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "byte {at} of {len}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn runs_are_whole_blocks_and_join() {
        let mut bytes = vec![0; 100];
        bytes[25] = 1;
        bytes[31] = 1;
        bytes[99] = 1;
        let mut runs = Vec::new();
        find_data(&bytes, 5..100, 10, &mut runs);
        assert_eq!(runs, [25..35, 95..100]);
        find_data(&bytes, 0..5, 10, &mut runs);
        assert_eq!(runs, [25..35, 95..100]);
    }
}
