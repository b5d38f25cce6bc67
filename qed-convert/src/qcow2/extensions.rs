//! The header extensions: what stands between the header and the backing file name.

use zerocopy::FromBytes;

use super::error::Qcow2FormatError;
use super::parse;
use super::raw::{RawBitmapsExtension, RawFeatureName};

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const DATA_FILE: u32 = 0x4441_5441;
const ENCRYPTION: u32 = 0x0537_be77;
const BITMAPS: u32 = 0x2385_2875;

/// Longest backing format name in bytes, as QEMU reads it.
const MAX_BACKING_FORMAT_LEN: usize = 15;

/// The extensions that this reader knows. Others are skipped: they are hints, or announced by a
/// feature bit.
#[derive(Debug, Clone, Default)]
pub(super) struct Extensions {
    /// Never empty.
    pub(super) backing_format: Option<Vec<u8>>,
    pub(super) bitmaps: Option<RawBitmapsExtension>,
    /// Name of the file that holds the guest data, which is never opened.
    pub(super) data_file: Option<Vec<u8>>,
    /// Where the LUKS header lies.
    pub(super) luks_place: Option<Vec<u8>>,
    /// Kinds that mean nothing here, of extensions that are no hints.
    pub(super) unknown: Vec<u32>,
    /// Byte of the file after the last extension and the word that ends them.
    pub(super) end: u64,
    /// Names of the incompatible feature bits.
    incompatible_names: Vec<(u8, String)>,
}

impl Extensions {
    /// Parses the header area `bytes`, which starts at byte `start` of the file and ends where the
    /// backing file name or cluster 0 does.
    pub(super) fn parse(bytes: &[u8], start: u64) -> Result<Self, Qcow2FormatError> {
        let mut found = Self { end: start, ..Self::default() };
        let mut rest = bytes;
        while rest.len() >= size_of::<u64>() {
            let at = start + (bytes.len() - rest.len()) as u64;
            let (kind, payload);
            (rest, (kind, payload)) =
                parse::extension(rest).map_err(|_| too_long(kind_of(rest), at))?;
            found.end = start + (bytes.len() - rest.len()) as u64;
            if kind == END {
                break;
            }
            found.take(kind, payload)?;
        }
        Ok(found)
    }

    /// The image's own name for an incompatible feature bit.
    pub(super) fn incompatible_name(&self, bit: u32) -> Option<&str> {
        let is_it = |(number, _): &&(u8, String)| u32::from(*number) == bit;
        self.incompatible_names.iter().find(is_it).map(|(_, name)| name.as_str())
    }

    fn take(&mut self, kind: u32, payload: &[u8]) -> Result<(), Qcow2FormatError> {
        let bad_length = Qcow2FormatError::ExtensionLength { kind, len: payload.len() };
        match kind {
            BACKING_FORMAT if payload.len() > MAX_BACKING_FORMAT_LEN => return Err(bad_length),
            BACKING_FORMAT => {
                self.backing_format = Some(payload.to_vec()).filter(|name| !name.is_empty());
            }
            FEATURE_NAMES => self.incompatible_names = incompatible_names(payload),
            BITMAPS => {
                let bitmaps = RawBitmapsExtension::read_from_bytes(payload);
                self.bitmaps = Some(bitmaps.map_err(|_| bad_length)?);
            }
            // To be shown; what they describe is not read.
            DATA_FILE | ENCRYPTION => {
                let place =
                    if kind == DATA_FILE { &mut self.data_file } else { &mut self.luks_place };
                *place = Some(payload.to_vec());
                self.unknown.push(kind);
            }
            other => self.unknown.push(other),
        }
        Ok(())
    }
}

fn incompatible_names(table: &[u8]) -> Vec<(u8, String)> {
    let rows = table.chunks_exact(size_of::<RawFeatureName>());
    rows.filter_map(|row| RawFeatureName::ref_from_bytes(row).ok())
        .filter(|row| row.class == 0 && row.bit < 64)
        .take(64)
        .map(|row| {
            let name = row.name.split(|byte| *byte == 0).next().unwrap_or_default();
            (row.bit, name.escape_ascii().to_string())
        })
        .collect()
}

fn kind_of(head: &[u8]) -> u32 {
    head.first_chunk().map_or(END, |bytes| u32::from_be_bytes(*bytes))
}

fn too_long(kind: u32, at: u64) -> Qcow2FormatError {
    Qcow2FormatError::ExtensionTooLong { kind, at }
}
