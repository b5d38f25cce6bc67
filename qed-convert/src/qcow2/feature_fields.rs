//! The header fields that version 3 added: feature bits, refcount width, compression type.

use zerocopy::FromBytes;

use super::error::Qcow2FormatError;
use super::extensions::Extensions;
use super::geometry::{Geometry, L2Layout};
use super::header::PREFIX_LEN;
use super::raw::{RawHeader, RawHeaderV3};
use crate::target::qcow2::Qcow2Compression;

const V3_LEN: usize = size_of::<RawHeader>() + size_of::<RawHeaderV3>();

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN_INCOMPATIBLE: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;
const LAZY_REFCOUNTS: u64 = 1;
const BITMAPS_VALID: u64 = 1;
const RAW_EXTERNAL_DATA: u64 = 1 << 1;

/// An incompatible feature that is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFeature {
    /// Number of the bit.
    pub bit: u32,
    /// Its name, where the format or the image has one.
    pub name: Option<String>,
}

/// The fields of version 3, with the values that version 2 stands for.
#[derive(Debug, Clone)]
pub(super) struct FeatureFields {
    incompatible: u64,
    compatible: u64,
    autoclear: u64,
    refcount_order: u32,
    /// Not set for version 2.
    header_length: Option<u32>,
}

impl FeatureFields {
    pub(super) fn parse(raw: &RawHeader, after: &[u8]) -> Result<Self, Qcow2FormatError> {
        if raw.version.get() == 2 {
            let (incompatible, compatible, autoclear) = (0, 0, 0);
            let (refcount_order, header_length) = (4, None);
            return Ok(Self { incompatible, compatible, autoclear, refcount_order, header_length });
        }
        let v3 = RawHeaderV3::ref_from_prefix(after);
        let (v3, _) = v3.map_err(|_| short_v3(after))?;
        Ok(Self {
            incompatible: v3.incompatible_features.get(),
            compatible: v3.compatible_features.get(),
            autoclear: v3.autoclear_features.get(),
            refcount_order: v3.refcount_order.get(),
            header_length: Some(v3.header_length.get()),
        })
    }

    pub(super) fn header_len(&self, cluster_size: u64) -> Result<u64, Qcow2FormatError> {
        let Some(found) = self.header_length else {
            return Ok(PREFIX_LEN);
        };
        let len = u64::from(found);
        if len < V3_LEN as u64 || !len.is_multiple_of(8) || len > cluster_size {
            return Err(Qcow2FormatError::HeaderLength { found, limit: cluster_size });
        }
        Ok(len)
    }

    /// The incompatible features that nothing is known of here.
    pub(super) fn unknown(&self, extensions: Option<&Extensions>) -> Vec<UnknownFeature> {
        let unknown = self.incompatible & !KNOWN_INCOMPATIBLE;
        let bits = (0..u64::BITS).filter(|bit| unknown >> bit & 1 == 1);
        let name = |bit| extensions.and_then(|known| known.incompatible_name(bit));
        bits.map(|bit| UnknownFeature { bit, name: name(bit).map(String::from) }).collect()
    }

    /// Whether guest data is in another file.
    pub(super) fn has_data_file(&self) -> bool {
        self.incompatible & EXTERNAL_DATA != 0
    }

    /// Whether the other file is the virtual disk, as a raw image is.
    pub(super) fn data_file_is_raw(&self) -> bool {
        self.autoclear & RAW_EXTERNAL_DATA != 0
    }

    pub(super) fn reject_unsupported(
        &self,
        raw: &RawHeader,
        extensions: Option<&Extensions>,
    ) -> Result<(), Qcow2FormatError> {
        if let Some(UnknownFeature { bit, name }) = self.unknown(extensions).into_iter().next() {
            return Err(Qcow2FormatError::UnsupportedFeature { bit, name });
        }
        if self.incompatible & EXTERNAL_DATA != 0 {
            return Err(Qcow2FormatError::ExternalDataFile);
        }
        match raw.crypt_method.get() {
            0 => Ok(()),
            found => Err(Qcow2FormatError::Encrypted { found }),
        }
    }

    pub(super) fn geometry(&self, cluster_bits: u32) -> Result<Geometry, Qcow2FormatError> {
        let layout = match self.incompatible & EXTENDED_L2 {
            0 => L2Layout::Standard,
            _ => L2Layout::Extended,
        };
        let bad = Qcow2FormatError::ExtendedL2ClusterBits { cluster_bits };
        Geometry::new(cluster_bits, layout).ok_or(bad)
    }

    pub(super) fn refcount_bits(&self) -> Result<u32, Qcow2FormatError> {
        match self.refcount_order {
            order @ 0..=6 => Ok(1 << order),
            found => Err(Qcow2FormatError::RefcountOrder { found }),
        }
    }

    /// The field after the 104 bytes of version 3, where the header is long enough to have it.
    pub(super) fn compression(
        &self,
        cluster0: &[u8],
    ) -> Result<Qcow2Compression, Qcow2FormatError> {
        let has_field = self.header_length.is_some_and(|len| len as usize > V3_LEN);
        let found = cluster0.get(V3_LEN).copied().filter(|_| has_field).unwrap_or(0);
        let bit = self.incompatible & COMPRESSION_TYPE != 0;
        match (found, bit) {
            (0, false) => Ok(Qcow2Compression::Zlib),
            (1, true) => Ok(Qcow2Compression::Zstd),
            (0 | 1, _) => Err(Qcow2FormatError::CompressionBit { found, bit }),
            _ => Err(Qcow2FormatError::CompressionType { found }),
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.incompatible & DIRTY != 0
    }

    pub(super) fn is_corrupt(&self) -> bool {
        self.incompatible & CORRUPT != 0
    }

    pub(super) fn has_lazy_refcounts(&self) -> bool {
        self.compatible & LAZY_REFCOUNTS != 0
    }

    /// Whether the bitmaps extension describes the image as it is.
    pub(super) fn bitmaps_are_valid(&self) -> bool {
        self.autoclear & BITMAPS_VALID != 0
    }
}

fn short_v3(after: &[u8]) -> Qcow2FormatError {
    let file_len = PREFIX_LEN + after.len() as u64;
    Qcow2FormatError::TooShort { file_len, needed: V3_LEN as u64 }
}
