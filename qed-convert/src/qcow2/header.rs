//! The QCOW2 header as a value that only exists if every field is legal and supported.
//!
//! Parses bytes; reading them is `open.rs`.

use qed_spec::BackingName;
use zerocopy::FromBytes;

use super::error::{Qcow2FormatError, Qcow2Part};
use super::extensions::Extensions;
use super::feature_fields::{FeatureFields, UnknownFeature};
use super::geometry::{CLUSTER_BITS, Geometry, L2Layout};
use super::raw::{RawBitmapsExtension, RawHeader};
use crate::target::qcow2::Qcow2Compression;

/// Bytes from the start of the file that tell the cluster size and so the length of the rest.
pub(super) const PREFIX_LEN: u64 = size_of::<RawHeader>() as u64;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const MAX_BACKING_NAME_LEN: u32 = 1023;
/// The highest method of encryption that has a meaning.
const METHOD_LUKS: u32 = 2;
/// Limits of QEMU, in bytes.
const MAX_L1_LEN: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_LEN: u64 = 8 << 20;
pub(super) const MAX_SNAPSHOTS: u32 = 65536;

/// The header of a QCOW2 image that this reader can read.
#[derive(Debug, Clone)]
pub struct Qcow2Header {
    version: u32,
    geometry: Geometry,
    image_size: u64,
    features: FeatureFields,
    refcount_bits: u32,
    compression: Qcow2Compression,
    l1: L1Place,
    snapshots: SnapshotTablePlace,
    refcounts: RefcountTablePlace,
    name_place: Option<(u64, u64)>,
    backing_name: Option<Vec<u8>>,
    extensions: Extensions,
    crypt_method: u32,
}

/// How the guest data of an image is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qcow2Encryption {
    /// By QEMU's own old method.
    Aes,
    /// With a LUKS header.
    Luks,
}

impl Qcow2Encryption {
    /// QEMU's name for the method.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Luks => "luks",
        }
    }
}

/// The data file of an image, as its header has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2DataFile<'a> {
    /// Its name, if the header has one.
    pub name: Option<&'a [u8]>,
    /// Whether it is the virtual disk, as a raw image is.
    pub is_raw: bool,
}

/// What is done with a header that needs something that is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsupported {
    Refused,
    /// The header is for showing only.
    Shown,
}

/// An L1 table of the image or of a snapshot, as its owner states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct L1Place {
    pub(crate) offset: u64,
    pub(crate) entries: u32,
}

/// The snapshot table, as the header states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SnapshotTablePlace {
    pub(super) offset: u64,
    pub(super) count: u32,
}

/// The refcount table, as the header states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefcountTablePlace {
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) len: u64,
}

impl Qcow2Header {
    /// Parses the header from cluster 0, or as much of it as the file has.
    ///
    /// # Errors
    /// The first rule that it breaks, or the feature that is not supported. A dirty or corrupt
    /// image is not an error: it can be read.
    pub fn parse(cluster0: &[u8], file_len: u64) -> Result<Self, Qcow2FormatError> {
        Self::parse_as(cluster0, file_len, Unsupported::Refused)
    }

    pub(super) fn parse_as(
        cluster0: &[u8],
        file_len: u64,
        unsupported: Unsupported,
    ) -> Result<Self, Qcow2FormatError> {
        let (raw, after) = raw_header(cluster0)?;
        let features = FeatureFields::parse(raw, after)?;
        let cluster_size = cluster_size(cluster0)?;
        let header_len = features.header_len(cluster_size)?;
        let (name_place, area_end) = backing_name_place(raw, header_len, cluster_size)?;
        let area = bytes_between(cluster0, header_len, area_end);
        let extensions = Extensions::parse(area, header_len);
        let crypt_method = raw.crypt_method.get();
        if unsupported == Unsupported::Refused || crypt_method > METHOD_LUKS {
            features.reject_unsupported(raw, extensions.as_ref().ok())?;
        }
        let extensions = extensions?;
        let header = Self {
            version: raw.version.get(),
            geometry: features.geometry(raw.cluster_bits.get())?,
            image_size: sector_multiple(raw.size.get())?,
            refcount_bits: features.refcount_bits()?,
            compression: features.compression(cluster0)?,
            l1: L1Place { offset: raw.l1_table_offset.get(), entries: raw.l1_size.get() },
            snapshots: SnapshotTablePlace {
                offset: raw.snapshots_offset.get(),
                count: raw.nb_snapshots.get(),
            },
            refcounts: RefcountTablePlace {
                offset: raw.refcount_table_offset.get(),
                len: u64::from(raw.refcount_table_clusters.get()) * cluster_size,
            },
            name_place,
            backing_name: backing_name(cluster0, name_place)?,
            extensions,
            features,
            crypt_method,
        };
        header.check_tables(raw, file_len)?;
        Ok(header)
    }

    /// Version of the format: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The version in QEMU's words: `0.10` or `1.1`.
    #[must_use]
    pub fn compat(&self) -> &'static str {
        if self.version < 3 { "0.10" } else { "1.1" }
    }

    /// Bytes of a cluster: a power of two from 512 bytes to 2 MiB.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        self.geometry.cluster_size()
    }

    /// Bytes of the virtual disk, a multiple of 512.
    #[must_use]
    pub fn image_size(&self) -> u64 {
        self.image_size
    }

    /// The backing file name as the image has it.
    #[must_use]
    pub fn backing_name(&self) -> Option<BackingName<'_>> {
        self.backing_name.as_deref().and_then(|name| BackingName::new(name).ok())
    }

    /// The backing file's format as the image has it, in no particular encoding.
    #[must_use]
    pub fn backing_format(&self) -> Option<&[u8]> {
        self.extensions.backing_format.as_deref()
    }

    /// How clusters are compressed.
    #[must_use]
    pub fn compression(&self) -> Qcow2Compression {
        self.compression
    }

    /// Whether refcounts may be wrong until the image is checked.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.features.is_dirty()
    }

    /// Whether a program marked the image as corrupt; it can be read, and should not be written.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.features.is_corrupt()
    }

    /// Whether refcounts are updated lazily.
    #[must_use]
    pub fn has_lazy_refcounts(&self) -> bool {
        self.features.has_lazy_refcounts()
    }

    /// Whether clusters have subclusters with mappings of their own.
    #[must_use]
    pub fn has_extended_l2(&self) -> bool {
        self.geometry.layout() == L2Layout::Extended
    }

    /// Width of a refcount in bits.
    #[must_use]
    pub fn refcount_bits(&self) -> u32 {
        self.refcount_bits
    }

    /// Number of internal snapshots.
    #[must_use]
    pub fn snapshot_count(&self) -> u32 {
        self.snapshots.count
    }

    /// How the guest data is encrypted; only a header that was read to be shown can say so.
    #[must_use]
    pub fn encryption(&self) -> Option<Qcow2Encryption> {
        match self.crypt_method {
            0 => None,
            METHOD_LUKS => Some(Qcow2Encryption::Luks),
            _ => Some(Qcow2Encryption::Aes),
        }
    }

    /// The extension that says where the LUKS header lies.
    pub(super) fn luks_place(&self) -> Option<&[u8]> {
        self.extensions.luks_place.as_deref()
    }

    /// The file that holds the guest data; only a header that was read to be shown can name one.
    #[must_use]
    pub fn data_file(&self) -> Option<Qcow2DataFile<'_>> {
        let name = self.extensions.data_file.as_deref();
        let is_raw = self.features.data_file_is_raw();
        self.features.has_data_file().then_some(Qcow2DataFile { name, is_raw })
    }

    /// Incompatible features that are not known here; only a header that was read to be shown can
    /// have any.
    #[must_use]
    pub fn unknown_features(&self) -> Vec<UnknownFeature> {
        self.features.unknown(Some(&self.extensions))
    }

    /// Offset and length of the backing file name in the file, in bytes.
    pub(crate) fn name_place(&self) -> Option<(u64, u64)> {
        self.name_place
    }

    /// Byte after the last that header, extensions and backing file name take up.
    pub(crate) fn used_end(&self) -> u64 {
        let name_end = self.name_place.map_or(0, |(offset, len)| offset + len);
        self.extensions.end.max(name_end)
    }

    /// Kinds of the extensions that are not known here.
    pub(crate) fn unknown_extensions(&self) -> &[u32] {
        &self.extensions.unknown
    }

    pub(crate) fn refcounts(&self) -> RefcountTablePlace {
        self.refcounts
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn l1(&self) -> L1Place {
        self.l1
    }

    pub(super) fn snapshots(&self) -> SnapshotTablePlace {
        self.snapshots
    }

    /// The bitmaps extension, where it describes the image as it is.
    pub(super) fn bitmaps(&self) -> Option<&RawBitmapsExtension> {
        self.extensions.bitmaps.as_ref().filter(|_| self.features.bitmaps_are_valid())
    }

    fn check_tables(&self, raw: &RawHeader, file_len: u64) -> Result<(), Qcow2FormatError> {
        check_l1(self.l1, Qcow2Part::L1Table, self.geometry, file_len)?;
        let needed = self.geometry.l1_entries_for(self.image_size);
        if u64::from(self.l1.entries) < needed {
            let (table, found) = (Qcow2Part::L1Table, self.l1.entries);
            return Err(Qcow2FormatError::L1TooSmall { table, found, needed });
        }
        // Refcounts are never read, but a header that lies about them lies.
        let refcounts = Qcow2Part::RefcountTable;
        let len = u64::from(raw.refcount_table_clusters.get()) * self.geometry.cluster_size();
        if len == 0 {
            return Err(Qcow2FormatError::TableMissing { table: refcounts });
        }
        let offset = raw.refcount_table_offset.get();
        check_table(refcounts, offset, len, MAX_REFCOUNT_TABLE_LEN, self.geometry)?;
        self.check_snapshot_table(file_len)
    }

    fn check_snapshot_table(&self, file_len: u64) -> Result<(), Qcow2FormatError> {
        let table = Qcow2Part::SnapshotTable;
        let SnapshotTablePlace { offset, count } = self.snapshots;
        let min_len = |count: u32| u64::from(count) * 40;
        check_table(table, offset, min_len(count), min_len(MAX_SNAPSHOTS), self.geometry)?;
        if count != 0 && offset.saturating_add(min_len(count)) > file_len {
            return Err(Qcow2FormatError::TablePastEnd { table, offset, file_len });
        }
        Ok(())
    }
}

/// Bytes of a cluster, from the first [`PREFIX_LEN`] bytes of the file.
pub(super) fn cluster_size(prefix: &[u8]) -> Result<u64, Qcow2FormatError> {
    let (raw, _) = raw_header(prefix)?;
    let found = raw.cluster_bits.get();
    if !CLUSTER_BITS.contains(&found) {
        return Err(Qcow2FormatError::ClusterBits { found });
    }
    Ok(1 << found)
}

/// Checks the place of an L1 table against alignment, the limit and the end of the file.
pub(super) fn check_l1(
    l1: L1Place,
    table: Qcow2Part,
    geometry: Geometry,
    file_len: u64,
) -> Result<(), Qcow2FormatError> {
    let len = u64::from(l1.entries) * 8;
    check_table(table, l1.offset, len, MAX_L1_LEN, geometry)?;
    if len != 0 && l1.offset.saturating_add(len) > file_len {
        return Err(Qcow2FormatError::TablePastEnd { table, offset: l1.offset, file_len });
    }
    Ok(())
}

/// A multiple of 512, or the error that it is none.
pub(super) fn sector_multiple(size: u64) -> Result<u64, Qcow2FormatError> {
    if !size.is_multiple_of(512) {
        return Err(Qcow2FormatError::ImageSize { found: size });
    }
    Ok(size)
}

fn raw_header(bytes: &[u8]) -> Result<(&RawHeader, &[u8]), Qcow2FormatError> {
    let found = bytes.first_chunk().copied().unwrap_or_default();
    if found != MAGIC {
        return Err(Qcow2FormatError::Magic { found });
    }
    let raw = RawHeader::ref_from_prefix(bytes);
    let (raw, after) = raw.map_err(|_| too_short(bytes, size_of::<RawHeader>()))?;
    match raw.version.get() {
        2 | 3 => Ok((raw, after)),
        found => Err(Qcow2FormatError::Version { found }),
    }
}

/// Where the backing file name lies, and where the header extensions end.
fn backing_name_place(
    raw: &RawHeader,
    header_len: u64,
    cluster_size: u64,
) -> Result<(Option<(u64, u64)>, u64), Qcow2FormatError> {
    let (offset, len) = (raw.backing_file_offset.get(), raw.backing_file_size.get());
    if offset == 0 {
        return Ok((None, cluster_size));
    }
    let inside = offset >= header_len
        && len <= MAX_BACKING_NAME_LEN
        && offset.checked_add(u64::from(len)).is_some_and(|end| end <= cluster_size);
    if !inside {
        return Err(Qcow2FormatError::BackingNamePlace { offset, len });
    }
    // QEMU's rebase to no backing file leaves an empty name behind.
    Ok((Some((offset, u64::from(len))).filter(|_| len != 0), offset))
}

fn backing_name(
    cluster0: &[u8],
    place: Option<(u64, u64)>,
) -> Result<Option<Vec<u8>>, Qcow2FormatError> {
    let Some((offset, len)) = place else {
        return Ok(None);
    };
    let name = bytes_between(cluster0, offset, offset + len);
    if name.len() as u64 != len {
        return Err(too_short(cluster0, usize::try_from(offset + len).unwrap_or(usize::MAX)));
    }
    Ok(Some(BackingName::new(name)?.as_bytes().to_vec()))
}

fn check_table(
    table: Qcow2Part,
    offset: u64,
    len: u64,
    limit: u64,
    geometry: Geometry,
) -> Result<(), Qcow2FormatError> {
    if len > limit {
        return Err(Qcow2FormatError::TableTooLarge { table, len, limit });
    }
    if !offset.is_multiple_of(geometry.cluster_size()) {
        return Err(Qcow2FormatError::TableUnaligned { table, offset });
    }
    if offset.checked_add(len).is_none_or(|end| i64::try_from(end).is_err()) {
        let file_len = i64::MAX.unsigned_abs();
        return Err(Qcow2FormatError::TablePastEnd { table, offset, file_len });
    }
    Ok(())
}

/// The part of `bytes` that lies in `start..end`, which may reach past its end.
fn bytes_between(bytes: &[u8], start: u64, end: u64) -> &[u8] {
    let clip = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(clip(start)..clip(end)).unwrap_or_default()
}

fn too_short(bytes: &[u8], needed: usize) -> Qcow2FormatError {
    Qcow2FormatError::TooShort { file_len: bytes.len() as u64, needed: needed as u64 }
}
