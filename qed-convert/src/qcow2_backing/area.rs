//! The bytes of cluster 0 that name the backing file: fields, extensions, and where the name lies.
//!
//! The header was checked before; what does not fit its rules is none here. Writes to no file.

use std::ops::Range;

const VERSION_AT: usize = 4;
const NAME_AT: usize = 8;
const NAME_LEN_AT: usize = 16;
const AUTOCLEAR_AT: usize = 88;
const HEADER_LEN_AT: usize = 100;
const V2_LEN: usize = 72;
/// Bitmaps, which no header change makes wrong, and raw external data.
const KEPT_AUTOCLEAR: u64 = 0b11;
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// A header extension with its padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extension {
    kind: u32,
    pub(super) bytes: Vec<u8>,
}

impl Extension {
    fn new(kind: u32, payload: &[u8]) -> Self {
        let len = u32::try_from(payload.len()).expect("inside a cluster");
        let mut bytes = [kind.to_be_bytes(), len.to_be_bytes()].concat();
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Self { kind, bytes }
    }

    fn is_format(&self) -> bool {
        self.kind == BACKING_FORMAT
    }
}

/// What is in use behind the fields of the header.
#[derive(Debug, Clone)]
pub(super) struct Area {
    /// Where the extensions begin.
    pub(super) start: usize,
    /// Byte after the last of them.
    pub(super) end: usize,
    /// With the mark that ends them, whether the image has it or not.
    pub(super) extensions: Vec<Extension>,
    /// None for an empty name too.
    pub(super) name: Option<Range<usize>>,
}

impl Area {
    pub(super) fn of(cluster: &[u8]) -> Option<Self> {
        let start = match word32(cluster, VERSION_AT)? {
            2 => V2_LEN,
            _ => usize::try_from(word32(cluster, HEADER_LEN_AT)?).ok()?,
        };
        let name_at = usize::try_from(word64(cluster, NAME_AT)?).ok()?;
        let name_len = usize::try_from(word32(cluster, NAME_LEN_AT)?).ok()?;
        let limit = if name_at == 0 { cluster.len() } else { name_at };
        let mut extensions = Vec::new();
        let mut at = start;
        while at + 8 <= limit {
            let kind = word32(cluster, at)?;
            let len = usize::try_from(word32(cluster, at + 4)?).ok()?;
            // The mark's length means nothing.
            if kind == END {
                at += 8;
                break;
            }
            // The last may end where the name begins, without its padding.
            let padded = 8 + len.next_multiple_of(8);
            let mut bytes = cluster.get(at..limit.min(at + padded))?.to_vec();
            bytes.resize(padded, 0);
            extensions.push(Extension { kind, bytes });
            at = limit.min(at + padded);
        }
        extensions.push(Extension::new(END, &[]));
        let name = (name_at != 0 && name_len != 0).then(|| name_at..name_at + name_len);
        Some(Self { start, end: at, extensions, name })
    }

    pub(super) fn without_format(&self) -> Vec<Extension> {
        self.extensions.iter().filter(|it| !it.is_format()).cloned().collect()
    }

    /// Where the format was, else in front, as QEMU has it.
    pub(super) fn with_format(&self, format: &[u8]) -> Vec<Extension> {
        let at = self.extensions.iter().position(Extension::is_format).unwrap_or(0);
        let mut extensions = self.without_format();
        extensions.insert(at, Extension::new(BACKING_FORMAT, format));
        extensions
    }

    /// Byte after the name; 0 without one.
    pub(super) fn name_end(&self) -> usize {
        self.name.as_ref().map_or(0, |name| name.end)
    }
}

/// Bytes that extensions take.
pub(super) fn len_of(extensions: &[Extension]) -> usize {
    extensions.iter().map(|it| it.bytes.len()).sum()
}

/// Writes into the fields where the name lies, if there is one, and where extensions begin, which
/// version 2 has in one place only; a writer of the image clears the bits of what it does not keep up.
pub(super) fn set_fields(
    cluster: &mut [u8],
    old_start: usize,
    start: usize,
    name: Option<Range<usize>>,
) -> Option<()> {
    let name = name.unwrap_or(0..0);
    let name_len = u32::try_from(name.len()).ok()?;
    put(cluster, NAME_AT, &(name.start as u64).to_be_bytes())?;
    put(cluster, NAME_LEN_AT, &name_len.to_be_bytes())?;
    if word32(cluster, VERSION_AT)? < 3 {
        return (start == old_start).then_some(());
    }
    put(cluster, HEADER_LEN_AT, &u32::try_from(start).ok()?.to_be_bytes())?;
    let kept = word64(cluster, AUTOCLEAR_AT)? & KEPT_AUTOCLEAR;
    put(cluster, AUTOCLEAR_AT, &kept.to_be_bytes())
}

fn put(cluster: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    cluster.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    Some(())
}

fn word32(cluster: &[u8], at: usize) -> Option<u32> {
    cluster.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn word64(cluster: &[u8], at: usize) -> Option<u64> {
    cluster.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
