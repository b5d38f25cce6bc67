//! The anchor: what an image whose cluster 0 is all its header area has instead of superblocks
//! there. Knows where the superblocks lie, not what they say.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use crate::addr::HostOffset;
use crate::crc::crc32c_of_block;
use crate::features::Features;
use crate::header::Header;
use crate::len::wide;
use crate::parse;
use crate::raw::{ANCHOR_LEN_BYTES, RawAnchor};
use crate::superblock::backing_format::StoredBackingFormat;
use crate::superblock::copies::SuperblockCopy;
use crate::superblock::error::AnchorError;

/// What an anchor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anchor<'a> {
    /// The format of the backing file, where one is stored.
    pub backing_format: Option<StoredBackingFormat<'a>>,
    /// Host offsets of superblock copies A and B, where there are some. They may be followed only
    /// as [`Anchor::superblocks_in`] gives them.
    pub superblocks: Option<[HostOffset; 2]>,
}

impl<'a> Anchor<'a> {
    /// Where the anchor lies in the image.
    // spec: QED-SB-18
    pub const OFFSET: HostOffset = HostOffset::new(2048);

    /// Parses the anchor at the front of `bytes`, of which it uses the first 512.
    ///
    /// # Errors
    /// The first rule that is broken.
    // spec: QED-SB-19
    pub fn parse(bytes: &'a [u8]) -> Result<Self, AnchorError> {
        let (_, raw) = parse::leaf::<RawAnchor>(bytes)
            .map_err(|_| AnchorError::Truncated { found: wide(bytes.len()) })?;
        if raw.magic != RawAnchor::MAGIC {
            return Err(AnchorError::Magic { found: raw.magic });
        }
        let (stored, computed) = (raw.crc32c.get(), crc32c_of_block(raw.as_bytes()));
        if stored != computed {
            return Err(AnchorError::Checksum { stored, computed });
        }
        if raw.version.get() != RawAnchor::VERSION {
            return Err(AnchorError::Version { found: raw.version.get() });
        }
        if let Some((at, _)) = (RESERVED_AT..).zip(raw.reserved).find(|(_, byte)| *byte != 0) {
            return Err(AnchorError::Padding { at });
        }
        Ok(Self { backing_format: backing_format(raw)?, superblocks: superblocks(raw) })
    }

    /// The 512 bytes of the anchor; [`Anchor::parse`] gives back an equal value.
    #[must_use]
    pub fn encode(&self) -> [u8; ANCHOR_LEN_BYTES] {
        let [a, b] = self.superblocks.unwrap_or_default();
        let mut format = [0; 32];
        if let Some(stored) = &self.backing_format {
            for (slot, byte) in format.iter_mut().zip(stored.format().as_bytes()) {
                *slot = *byte;
            }
        }
        let mut raw = RawAnchor {
            magic: RawAnchor::MAGIC,
            version: U32::new(RawAnchor::VERSION),
            crc32c: U32::ZERO,
            name_crc32c: U32::new(self.backing_format.map_or(0, |stored| stored.name_crc32c())),
            superblocks: [U64::new(a.get()), U64::new(b.get())],
            format,
            reserved: [0; 448],
        };
        raw.crc32c = U32::new(crc32c_of_block(raw.as_bytes()));
        zerocopy::transmute!(raw)
    }

    /// Whether an image with this header may have an anchor: its header area has no room for
    /// superblocks, and its backing file name does not reach the anchor.
    // spec: QED-SB-18
    #[must_use]
    pub fn fits(header: &Header) -> bool {
        let (start, end) = (Self::OFFSET.get(), CONVERSION_AREA_END_BYTES);
        header.header_area_len_bytes() < SUPERBLOCK_AREA_END_BYTES
            && !header.backing_name_overlaps(start, end)
    }

    /// Where superblock copies A and B lie, in an image with this header and of `file_len` bytes.
    ///
    /// None where the anchor names none, and where no incompatible feature of the extensions is
    /// set: then a program that knows nothing of the anchor may have reused their clusters.
    ///
    /// # Errors
    /// [`AnchorError::Place`] for a copy without a whole cluster of its own behind the header
    /// area.
    // spec: QED-SB-20
    pub fn superblocks_in(
        &self,
        header: &Header,
        file_len: u64,
    ) -> Result<Option<[HostOffset; 2]>, AnchorError> {
        let extended = !header.features().difference(Features::CLASSIC).is_empty();
        let Some([a, b]) = self.superblocks.filter(|_| extended) else {
            return Ok(None);
        };
        for (copy, found) in [(SuperblockCopy::A, a), (SuperblockCopy::B, b)] {
            if a == b || !is_cluster_of_file(header, found, file_len) {
                return Err(AnchorError::Place { copy, found, file_len });
            }
        }
        Ok(Some([a, b]))
    }
}

/// Byte after the last of superblock copy B where the header area holds it.
const SUPERBLOCK_AREA_END_BYTES: u64 = 16384;

/// Byte after the last that anchor and undo record of a converted image take up.
const CONVERSION_AREA_END_BYTES: u64 = 4096;

/// First byte of `reserved`.
const RESERVED_AT: u32 = 64;

fn backing_format(raw: &RawAnchor) -> Result<Option<StoredBackingFormat<'_>>, AnchorError> {
    let len =
        raw.format.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    let format = raw.format.get(..len).unwrap_or_default();
    if format.is_empty() && raw.name_crc32c.get() == 0 {
        return Ok(None);
    }
    StoredBackingFormat::from_parts(raw.name_crc32c.get(), format)
        .map(Some)
        .map_err(AnchorError::BackingFormat)
}

fn superblocks(raw: &RawAnchor) -> Option<[HostOffset; 2]> {
    let places = raw.superblocks.map(|offset| HostOffset::new(offset.get()));
    (places != [HostOffset::default(); 2]).then_some(places)
}

fn is_cluster_of_file(header: &Header, at: HostOffset, file_len: u64) -> bool {
    let geometry = header.geometry();
    let end = at.checked_add(geometry.cluster_size_bytes());
    geometry.host_cluster(at).is_some()
        && at.get() >= header.header_area_len_bytes()
        && end.is_some_and(|end| end.get() <= file_len)
}
