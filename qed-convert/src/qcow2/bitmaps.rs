//! Persistent dirty bitmaps: listed for people, otherwise ignored.

use qed_io::Storage;
use qed_spec::HostOffset;

use super::error::{Qcow2FormatError, Qcow2OpenError, Qcow2Part};
use super::header::Qcow2Header;
use super::parse;
use super::raw::RawBitmapHead;

/// Longest bitmap directory that is read, in bytes: 65,535 bitmaps with names of 200 bytes.
const MAX_DIRECTORY_LEN: u64 = 16 << 20;
const IN_USE: u32 = 1;
const AUTO: u32 = 2;

/// A persistent dirty bitmap, as its image describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qcow2Bitmap {
    /// The name, in no particular encoding.
    pub name: Vec<u8>,
    /// Guest bytes that one bit stands for.
    pub granularity: u64,
    /// A program was using the bitmap when the image was last closed, so its bits mean nothing.
    pub in_use: bool,
    /// QEMU updates the bitmap whenever the image is written.
    pub auto: bool,
}

/// Reads the bitmap directory; empty where the image has none that fits its data.
pub(super) fn read_bitmaps(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
) -> Result<Vec<Qcow2Bitmap>, Qcow2OpenError> {
    let Some(place) = header.bitmaps() else {
        return Ok(Vec::new());
    };
    let (offset, len) = (place.directory_offset.get(), place.directory_size.get());
    let table = Qcow2Part::BitmapDirectory;
    if len > MAX_DIRECTORY_LEN {
        let limit = MAX_DIRECTORY_LEN;
        return Err(Qcow2FormatError::TableTooLarge { table, len, limit }.into());
    }
    if offset.checked_add(len).is_none_or(|end| end > file_len) {
        return Err(Qcow2FormatError::TablePastEnd { table, offset, file_len }.into());
    }
    let mut directory = vec![0; usize::try_from(len).unwrap_or_default()];
    let at = HostOffset::new(offset);
    let io = |source| Qcow2OpenError::Io { what: table, at, source };
    storage.read_at(&mut directory, offset).map_err(io)?;
    Ok(parse_directory(&directory, place.nb_bitmaps.get())?)
}

fn parse_directory(directory: &[u8], count: u32) -> Result<Vec<Qcow2Bitmap>, Qcow2FormatError> {
    let mut rest = directory;
    let mut bitmaps = Vec::new();
    for index in 0..count {
        let (head, name): (&RawBitmapHead, &[u8]);
        (rest, (head, name)) =
            parse::bitmap(rest).map_err(|_| Qcow2FormatError::BitmapEntry { index })?;
        bitmaps.push(Qcow2Bitmap {
            name: name.to_vec(),
            granularity: 1_u64.checked_shl(head.granularity_bits.into()).unwrap_or(0),
            in_use: head.flags.get() & IN_USE != 0,
            auto: head.flags.get() & AUTO != 0,
        });
    }
    Ok(bitmaps)
}
