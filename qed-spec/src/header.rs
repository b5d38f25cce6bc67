//! The validated header. Only [`Header::parse`] and [`Header::new`] make one, and both check.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use crate::addr::HostOffset;
use crate::backing_name::{BackingName, MAX_BACKING_NAME_LEN_BYTES};
use crate::error::{BackingNameError, HeaderError};
use crate::features::{AutoclearFeatures, CompatFeatures, Features};
use crate::geometry::Geometry;
use crate::len::wide;
use crate::parse;
use crate::raw::{HEADER_LEN_BYTES, RawHeader};

/// Bytes of the sector that the header lies in, which a disk writes whole or not at all.
pub const HEADER_SECTOR_LEN_BYTES: usize = 512;

/// A header that keeps every rule of the specification for a file of a known length.
///
/// Unknown compatible and autoclear bits are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    fields: HeaderFields,
    backing_name_offset: u32,
    backing_name_len: u32,
}

/// The fields of a header that a writer chooses; [`Header::new`] checks them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderFields {
    /// Cluster and table size.
    pub geometry: Geometry,
    /// Clusters of the header area, from 1.
    pub header_size_clusters: u32,
    /// Incompatible features.
    pub features: Features,
    /// Compatible features.
    pub compat_features: CompatFeatures,
    /// Autoclear features.
    pub autoclear_features: AutoclearFeatures,
    /// Where the L1 table starts.
    pub l1_table_offset: HostOffset,
    /// Bytes of the virtual disk, a multiple of 512.
    pub image_size: u64,
}

impl Header {
    /// A header with `fields` and no backing file name, for a file of at least `file_len` bytes.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(fields: HeaderFields, file_len: u64) -> Result<Self, HeaderError> {
        let header = Self { fields, backing_name_offset: 0, backing_name_len: 0 };
        header.check(file_len)?;
        Ok(header)
    }

    /// Parses the header at the front of `bytes`, which start at byte 0 of a file of `file_len`
    /// bytes, accepting the incompatible features in `supported`.
    ///
    /// # Errors
    /// The first rule that is broken; bits outside `supported` come before the rules of fields
    /// whose meaning they might change.
    pub fn parse(bytes: &[u8], file_len: u64, supported: Features) -> Result<Self, HeaderError> {
        let (_, raw) = parse::raw_header(bytes)
            .map_err(|_| HeaderError::Truncated { found: wide(bytes.len()) })?;
        // spec: QED-HDR-02
        if raw.magic != RawHeader::MAGIC {
            return Err(HeaderError::Magic { found: raw.magic });
        }
        // spec: QED-FEAT-01, QED-HDR-10
        let features = Features::from_bits_retain(raw.features.get());
        if let Some((bit, name)) = features.first_unsupported(supported) {
            return Err(HeaderError::UnsupportedFeature { bit, name });
        }
        let header = Self {
            fields: HeaderFields {
                geometry: geometry(raw)?,
                header_size_clusters: raw.header_size.get(),
                features,
                compat_features: CompatFeatures::from_bits_retain(raw.compat_features.get()),
                autoclear_features: AutoclearFeatures::from_bits_retain(
                    raw.autoclear_features.get(),
                ),
                l1_table_offset: HostOffset::new(raw.l1_table_offset.get()),
                image_size: raw.image_size.get(),
            },
            backing_name_offset: raw.backing_filename_offset.get(),
            backing_name_len: raw.backing_filename_size.get(),
        };
        header.check(file_len)?;
        Ok(header)
    }

    /// The 64 bytes of the header; [`Header::parse`] gives back an equal value.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN_BYTES] {
        let fields = &self.fields;
        let raw = RawHeader {
            magic: RawHeader::MAGIC,
            cluster_size: narrow(fields.geometry.cluster_size_bytes()),
            table_size: narrow(fields.geometry.table_size_clusters()),
            header_size: U32::new(fields.header_size_clusters),
            features: U64::new(fields.features.bits()),
            compat_features: U64::new(fields.compat_features.bits()),
            autoclear_features: U64::new(fields.autoclear_features.bits()),
            l1_table_offset: U64::new(fields.l1_table_offset.get()),
            image_size: U64::new(fields.image_size),
            backing_filename_offset: U32::new(self.backing_name_offset),
            backing_filename_size: U32::new(self.backing_name_len),
        };
        let mut bytes = [0; HEADER_LEN_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The first sector of a file with this header in place of the one that `sector` has; all other
    /// bytes are kept. A change of the header writes these bytes at once, from byte 0.
    // spec: QED-HDR-09
    #[must_use]
    pub fn encode_sector(
        &self,
        sector: &[u8; HEADER_SECTOR_LEN_BYTES],
    ) -> [u8; HEADER_SECTOR_LEN_BYTES] {
        let mut bytes = *sector;
        bytes.iter_mut().zip(self.encode()).for_each(|(byte, new)| *byte = new);
        bytes
    }

    /// The fields, to build a changed header from with [`Header::with_fields`].
    #[must_use]
    pub const fn fields(&self) -> &HeaderFields {
        &self.fields
    }

    /// The header with other fields and the same backing file name place.
    ///
    /// # Errors
    /// The first rule that is broken for a file of `file_len` bytes.
    pub fn with_fields(&self, fields: HeaderFields, file_len: u64) -> Result<Self, HeaderError> {
        let header = Self { fields, ..*self };
        header.check(file_len)?;
        Ok(header)
    }

    /// The header with its backing file name at `offset` and `len` bytes long, or without one;
    /// sets or clears [`Features::BACKING_FILE`] to match, and without one also
    /// [`Features::BACKING_FORMAT_NO_PROBE`].
    ///
    /// # Errors
    /// The first rule that is broken for a file of `file_len` bytes.
    // spec: QED-FEAT-09
    pub fn with_backing_name_at(
        &self,
        place: Option<(u32, u32)>,
        file_len: u64,
    ) -> Result<Self, HeaderError> {
        let mut header = *self;
        header.fields.features.set(Features::BACKING_FILE, place.is_some());
        if place.is_none() {
            header.fields.features.remove(Features::BACKING_FORMAT_NO_PROBE);
        }
        (header.backing_name_offset, header.backing_name_len) = place.unwrap_or((0, 0));
        header.check(file_len)?;
        Ok(header)
    }

    /// Cluster and table size.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.fields.geometry
    }

    /// Bytes of the virtual disk.
    #[must_use]
    pub const fn image_size(&self) -> u64 {
        self.fields.image_size
    }

    /// Incompatible features.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.fields.features
    }

    /// Bytes of the header area.
    // spec: QED-HDR-08
    #[must_use]
    #[expect(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        reason = "u32 clusters of at most 2^26 bytes"
    )]
    pub const fn header_area_len_bytes(&self) -> u64 {
        self.fields.header_size_clusters as u64 * self.fields.geometry.cluster_size_bytes()
    }

    /// Where the backing file name lies: offset and length in bytes; none without a backing file.
    #[must_use]
    pub fn backing_name_place(&self) -> Option<(u32, u32)> {
        self.fields
            .features
            .contains(Features::BACKING_FILE)
            .then_some((self.backing_name_offset, self.backing_name_len))
    }

    /// Whether the backing file name has bytes in `start..end` of the image.
    pub(crate) fn backing_name_overlaps(&self, start: u64, end: u64) -> bool {
        self.backing_name_place().is_some_and(|(offset, len)| {
            let offset = u64::from(offset);
            offset < end && offset.saturating_add(len.into()) > start
        })
    }

    /// The backing file name, from `bytes` that start at byte 0 of the image.
    ///
    /// # Errors
    /// [`BackingNameError::NeedMore`] when `bytes` end before the name does; else the rule that
    /// the name breaks.
    // spec: QED-BACK-02
    pub fn backing_name<'a>(
        &self,
        bytes: &'a [u8],
    ) -> Result<Option<BackingName<'a>>, BackingNameError> {
        let Some((offset, len)) = self.backing_name_place() else {
            return Ok(None);
        };
        let (_, name) = parse::bytes_at(bytes, offset.into(), len.into()).map_err(|_| {
            BackingNameError::NeedMore {
                needed: u64::from(offset).saturating_add(len.into()),
                found: wide(bytes.len()),
            }
        })?;
        BackingName::new(name).map(Some)
    }

    fn check(&self, file_len: u64) -> Result<(), HeaderError> {
        let fields = &self.fields;
        let geometry = fields.geometry;
        // spec: QED-HDR-05
        let max = geometry.clusters_for(file_len).get();
        let header_size = u64::from(fields.header_size_clusters);
        if header_size == 0 || header_size > max {
            return Err(HeaderError::HeaderSize { found: fields.header_size_clusters, max });
        }
        // spec: QED-HDR-07
        if !fields.image_size.is_multiple_of(512) {
            return Err(HeaderError::ImageSizeUnaligned { found: fields.image_size });
        }
        let max = geometry.max_image_size_bytes();
        if fields.image_size > max {
            return Err(HeaderError::ImageSizeTooLarge { found: fields.image_size, max });
        }
        // spec: QED-HDR-06
        let l1 = fields.l1_table_offset;
        let end = l1.get().checked_add(geometry.table_size_bytes());
        let aligned = geometry.host_cluster(l1).is_some();
        let inside = end.is_some_and(|end| end <= file_len);
        if !aligned || !inside || l1.get() < self.header_area_len_bytes() {
            return Err(HeaderError::L1TableOffset { found: l1, file_len });
        }
        self.check_backing_place().map_err(HeaderError::BackingName)
    }

    // spec: QED-BACK-01
    fn check_backing_place(&self) -> Result<(), BackingNameError> {
        let Some((offset, len)) = self.backing_name_place() else {
            return Ok(());
        };
        let (offset, len) = (u64::from(offset), u64::from(len));
        if len == 0 {
            return Err(BackingNameError::Empty);
        }
        if len > wide(MAX_BACKING_NAME_LEN_BYTES) {
            return Err(BackingNameError::TooLong { found: len });
        }
        let end = offset.saturating_add(len);
        let area_end = self.header_area_len_bytes();
        if offset < wide(HEADER_LEN_BYTES) || end > area_end {
            return Err(BackingNameError::OutsideHeaderArea { offset, end, area_end });
        }
        Ok(())
    }
}

fn geometry(raw: &RawHeader) -> Result<Geometry, HeaderError> {
    let (cluster_size, table_size) = (raw.cluster_size.get(), raw.table_size.get());
    Geometry::new(cluster_size, table_size).ok_or_else(|| {
        // A table of one cluster is always legal, so what is left at fault is the cluster size.
        if Geometry::new(cluster_size, 1).is_none() {
            HeaderError::ClusterSize { found: cluster_size }
        } else {
            HeaderError::TableSize { found: table_size }
        }
    })
}

fn narrow(value: u64) -> U32 {
    U32::new(u32::try_from(value).expect("cluster and table sizes were u32 when checked"))
}
