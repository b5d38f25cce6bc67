//! Numbers that bounds are likely to be wrong about.

use arbitrary::{Result, Unstructured};

/// Ends and middles of ranges that code likes to assume.
const ANYWHERE: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    63,
    64,
    511,
    512,
    513,
    4095,
    4096,
    4097,
    65536,
    1 << 26,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 32,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 511,
    u64::MAX,
];

/// A number that a bound is likely to be wrong about: most often one of `landmarks`, where things
/// of the image at hand begin or end, or a little beside it.
pub(crate) fn number(from: &mut Unstructured<'_>, landmarks: &[u64]) -> Result<u64> {
    Ok(match from.int_in_range(0..=7)? {
        0..4 if !landmarks.is_empty() => {
            let landmark = *from.choose(landmarks)?;
            beside(from, landmark)?
        }
        0..5 => *from.choose(&ANYWHERE)?,
        5 => {
            let bit = from.int_in_range(0..=63)?;
            beside(from, 1 << bit)?
        }
        6 => from.arbitrary::<u16>()?.into(),
        _ => from.arbitrary()?,
    })
}

/// The number, or one of those around it.
fn beside(from: &mut Unstructured<'_>, landmark: u64) -> Result<u64> {
    let step = *from.choose(&[0, 0, 1, 2, 8, 512])?;
    Ok(if from.arbitrary()? { landmark.wrapping_add(step) } else { landmark.wrapping_sub(step) })
}
