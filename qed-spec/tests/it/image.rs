//! What the tests share: header bytes field by field, all shapes, and interesting numbers.

use std::collections::BTreeSet;

use qed_spec::{Features, Geometry, Header, HeaderFields, HostOffset};

/// The header fields of an image as plain numbers, none of them checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) magic: [u8; 4],
    pub(crate) cluster_size: u32,
    pub(crate) table_size: u32,
    pub(crate) header_size: u32,
    pub(crate) features: u64,
    pub(crate) compat_features: u64,
    pub(crate) autoclear_features: u64,
    pub(crate) l1_table_offset: u64,
    pub(crate) image_size: u64,
    pub(crate) name_offset: u32,
    pub(crate) name_len: u32,
}

impl Fields {
    /// What `create` writes for a disk of 1 GiB.
    pub(crate) const CLASSIC: Self = Self {
        magic: *b"QED\0",
        cluster_size: 65536,
        table_size: 4,
        header_size: 1,
        features: 0,
        compat_features: 0,
        autoclear_features: 0,
        l1_table_offset: 65536,
        image_size: 1 << 30,
        name_offset: 0,
        name_len: 0,
    };

    /// The 64 bytes on disk, put together without the crate's own structures.
    pub(crate) fn bytes(&self) -> [u8; 64] {
        let mut bytes = self.magic.to_vec();
        for field in [self.cluster_size, self.table_size, self.header_size] {
            bytes.extend(field.to_le_bytes());
        }
        let wide = [
            self.features,
            self.compat_features,
            self.autoclear_features,
            self.l1_table_offset,
            self.image_size,
        ];
        for field in wide {
            bytes.extend(field.to_le_bytes());
        }
        for field in [self.name_offset, self.name_len] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.try_into().expect("the fields are 64 bytes long")
    }
}

/// The cluster sizes of the specification, written out.
pub(crate) const CLUSTER_SIZES: [u32; 15] = [
    4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576, 2097152, 4194304, 8388608,
    16777216, 33554432, 67108864,
];

/// The table sizes of the specification, written out.
pub(crate) const TABLE_SIZES: [u32; 5] = [1, 2, 4, 8, 16];

/// All 75 shapes: cluster size, table size and the geometry.
pub(crate) fn shapes() -> impl Iterator<Item = (u32, u32, Geometry)> {
    CLUSTER_SIZES.into_iter().flat_map(|cluster_size| {
        TABLE_SIZES.into_iter().map(move |table_size| {
            let geometry = Geometry::new(cluster_size, table_size).expect("a legal shape");
            (cluster_size, table_size, geometry)
        })
    })
}

/// 0, 1, every power of two, its neighbours, and the largest number.
pub(crate) fn edges64() -> BTreeSet<u64> {
    let powers = (0..64).map(|bit| 1_u64 << bit);
    let around = powers.flat_map(|power| [power - 1, power, power + 1]);
    around.chain([u64::MAX - 1, u64::MAX]).collect()
}

/// As [`edges64`], for a field of 32 bits.
pub(crate) fn edges32() -> BTreeSet<u32> {
    edges64().into_iter().filter_map(|value| u32::try_from(value).ok()).collect()
}

/// A header with a header area of `header_size` clusters and perhaps a backing file name.
pub(crate) fn header(
    cluster_size: u32,
    header_size: u32,
    features: Features,
    name: Option<(u32, u32)>,
) -> Header {
    let file_len = u64::from(cluster_size) * u64::from(header_size + 8);
    let fields = HeaderFields {
        geometry: Geometry::new(cluster_size, 1).expect("a legal shape"),
        header_size_clusters: header_size,
        features: features.difference(Features::BACKING_FILE),
        compat_features: Default::default(),
        autoclear_features: Default::default(),
        l1_table_offset: HostOffset::new(u64::from(cluster_size) * u64::from(header_size)),
        image_size: 0,
    };
    let header = Header::new(fields, file_len).expect("legal fields");
    header.with_backing_name_at(name, file_len).expect("a legal place")
}
