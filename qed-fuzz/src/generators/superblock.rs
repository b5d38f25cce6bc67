//! Near-valid superblocks and anchors: what a writer lays, a few bytes of it changed, and the
//! checksum most often made right again, so that what lies behind it is looked at.

use arbitrary::{Result, Unstructured};

use crate::crc32c::{crc32c, crc32c_of_block};
use crate::generators::number::number;
use crate::size::usize_of;

/// Where the sections of a superblock begin, and bytes of a whole one.
const SECTIONS: usize = 48;
const SUPERBLOCK: usize = 4096;
const ANCHOR: usize = 512;

/// Names of backing files that the generators use.
const NAMES: [&[u8]; 4] = [b"base", b"backing.raw", b"b", b"\xff"];
/// Formats, some of them illegal.
const FORMATS: [&[u8]; 8] = [
    b"raw",
    b"qed",
    b"qcow2",
    b"a-z_09",
    b"",
    b"RAW",
    b"0123456789abcdef0123456789abcdef",
    b"0123456789abcdef0123456789abcdefg",
];

/// The two copies of a superblock, and a backing file name that they may speak of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SuperblockCase {
    pub(crate) a: Vec<u8>,
    pub(crate) b: Vec<u8>,
    pub(crate) name: &'static [u8],
}

impl SuperblockCase {
    /// Two copies: of two writers, or of one that got on.
    pub(crate) fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        let name = *from.choose(&NAMES)?;
        let a = superblock(from, name)?;
        let b = match from.int_in_range(0..=3)? {
            0 => a.clone(),
            1 if a.len() == SUPERBLOCK => {
                let mut b = a.clone();
                let generation = u64::from_le_bytes(b[16..24].try_into().expect("eight bytes"));
                let next = number(from, &[generation])?;
                b[16..24].copy_from_slice(&next.to_le_bytes());
                seal(&mut b);
                b
            }
            _ => superblock(from, name)?,
        };
        Ok(Self { a, b, name })
    }
}

/// An anchor.
pub(crate) fn anchor(from: &mut Unstructured<'_>, name: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; ANCHOR];
    bytes[..4].copy_from_slice(b"QEDA");
    bytes[4] = 1;
    if from.arbitrary()? {
        let format = *from.choose(&FORMATS)?;
        bytes[12..16].copy_from_slice(&crc32c(name).to_le_bytes());
        let len = format.len().min(32);
        bytes[32..32 + len].copy_from_slice(&format[..len]);
    }
    if from.arbitrary()? {
        for at in [16, 24] {
            let place = number(from, &[4096, 8192, 65536, 1 << 20])?;
            bytes[at..at + 8].copy_from_slice(&place.to_le_bytes());
        }
    }
    changed(from, bytes)
}

fn superblock(from: &mut Unstructured<'_>, name: &[u8]) -> Result<Vec<u8>> {
    if from.ratio(1, 8)? {
        return changed(from, vec![0; SUPERBLOCK]);
    }
    let mut sections = Vec::new();
    let mut kind = 0;
    for _ in 0..from.int_in_range(0..=4)? {
        kind = section_type(from, kind)?;
        let payload = payload(from, kind, name)?;
        sections.extend(kind.to_le_bytes());
        sections.extend(u32::try_from(payload.len()).expect("short").to_le_bytes());
        sections.extend(&payload);
        sections.resize(sections.len().next_multiple_of(8), 0);
    }
    sections.truncate(SUPERBLOCK - SECTIONS);
    let mut bytes = vec![0; SUPERBLOCK];
    bytes[..4].copy_from_slice(b"QEDX");
    bytes[4] = 1;
    let len = u32::try_from(sections.len()).expect("at most 4048");
    bytes[12..16].copy_from_slice(&len.to_le_bytes());
    bytes[16..24].copy_from_slice(&number(from, &[1, 2, 3])?.to_le_bytes());
    bytes[24..40].fill(from.arbitrary()?);
    bytes[40..48].copy_from_slice(&number(from, &[])?.to_le_bytes());
    bytes[SECTIONS..SECTIONS + sections.len()].copy_from_slice(&sections);
    changed(from, bytes)
}

/// A type above `last`, as a rule.
fn section_type(from: &mut Unstructured<'_>, last: u32) -> Result<u32> {
    Ok(match from.int_in_range(0..=15)? {
        0 => last,
        1 => from.arbitrary()?,
        step => last.saturating_add(step - 1),
    })
}

fn payload(from: &mut Unstructured<'_>, kind: u32, name: &[u8]) -> Result<Vec<u8>> {
    if kind == 2 && from.ratio(7, 8)? {
        let mut payload = crc32c(name).to_le_bytes().to_vec();
        payload.extend_from_slice(from.choose(&FORMATS)?);
        return Ok(payload);
    }
    let len = usize_of(match from.int_in_range(0..=7)? {
        0 => number(from, &[SUPERBLOCK as u64 - SECTIONS as u64 - 8])?.min(5000),
        _ => from.int_in_range(0..=24)?,
    });
    Ok(vec![from.arbitrary()?; len])
}

/// Changes up to three things of a block whose checksum lies in bytes 8 to 12.
fn changed(from: &mut Unstructured<'_>, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let count = from.int_in_range(0..=7_u8)?.saturating_sub(4);
    for _ in 0..count {
        match from.int_in_range(0..=3)? {
            0 => {
                let at = 4 * from.int_in_range(0..=31)?;
                let value = number(from, &[bytes.len() as u64 - SECTIONS as u64])?;
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes()[..4]);
            }
            1 => {
                let last = bytes.len() - 1;
                let at = from.int_in_range(0..=last)?;
                bytes[at] = from.arbitrary()?;
            }
            _ => {
                let at = from.int_in_range(0..=127)?;
                bytes[at] = bytes[at].wrapping_add(from.int_in_range(1..=2)?);
            }
        }
    }
    if from.ratio(7, 8)? {
        seal(&mut bytes);
    }
    if from.ratio(1, 16)? {
        let len = from.int_in_range(0..=bytes.len())?;
        bytes.truncate(len);
    }
    Ok(bytes)
}

/// Makes the checksum right.
fn seal(bytes: &mut [u8]) {
    if bytes.len() >= 12 {
        let crc = crc32c_of_block(bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}
