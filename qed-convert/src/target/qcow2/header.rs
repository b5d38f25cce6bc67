//! The first cluster of a QCOW2 image: header, extensions, backing file name.

use crate::target::qcow2::options::{Qcow2Compression, Qcow2CreateOptions, Qcow2Version};
use crate::target::qcow2::refcounts::RefcountTable;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const V2_LEN: usize = 72;
const V3_LEN: u32 = 112;
/// Incompatible feature bit: the codec is not zlib.
const COMPRESSION_TYPE: u64 = 1 << 3;
/// Compatible feature bit.
const LAZY_REFCOUNTS: u64 = 1;
const BACKING_FORMAT_EXTENSION: u32 = 0xe279_2aca;
const FEATURE_NAMES_EXTENSION: u32 = 0x6803_f857;
const END_OF_EXTENSIONS: [u8; 8] = [0; 8];

/// Class (0 incompatible, 1 compatible, 2 autoclear), bit and name of the feature bits that QEMU
/// names in a new image.
const FEATURE_NAMES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];
const FEATURE_NAME_LEN: usize = 46;

/// Where the header says that things are.
pub(crate) struct Places {
    /// Bytes from the start of the file; not looked at without a backing file.
    pub(crate) name_at: u64,
    /// Bytes from the start of the file; not looked at where the table is empty.
    pub(crate) l1_at: u64,
    pub(crate) refcounts: RefcountTable,
}

/// The bytes from the header to the end of the backing file name; the L1 table is at cluster 1.
pub(crate) fn encode(options: &Qcow2CreateOptions, refcounts: RefcountTable) -> Vec<u8> {
    let extensions = extensions(options);
    let name_at = (header_len(options) + extensions.len()) as u64;
    let mut bytes =
        fields(options, &Places { name_at, l1_at: options.cluster_len.into(), refcounts });
    bytes.extend(extensions);
    bytes.extend(options.backing.as_ref().map_or(&[][..], |backing| &backing.name));
    bytes
}

/// The header and the format of the backing file, in one sector. The name of the backing file lies
/// elsewhere in the first cluster, and the feature bits have no names. None if the format does not
/// fit.
pub(crate) fn encode_sector(options: &Qcow2CreateOptions, places: &Places) -> Option<[u8; 512]> {
    let mut bytes = fields(options, places);
    bytes.extend(backing_format(options));
    bytes.extend(END_OF_EXTENSIONS);
    bytes.resize(bytes.len().max(512), 0);
    bytes.try_into().ok()
}

fn fields(options: &Qcow2CreateOptions, places: &Places) -> Vec<u8> {
    let name_len = options.backing.as_ref().map_or(0, |backing| backing.name.len());
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    put32(&mut bytes, if options.version == Qcow2Version::V2 { 2 } else { 3 });
    put64(&mut bytes, if name_len == 0 { 0 } else { places.name_at });
    put32(&mut bytes, narrow(name_len));
    put32(&mut bytes, options.cluster_len.trailing_zeros());
    put64(&mut bytes, options.size);
    put32(&mut bytes, 0); // no encryption
    put32(&mut bytes, u32::try_from(options.l1_entries()).expect("the L1 table is limited"));
    put64(&mut bytes, if options.l1_entries() == 0 { 0 } else { places.l1_at });
    put64(&mut bytes, places.refcounts.at);
    put32(&mut bytes, places.refcounts.clusters);
    put32(&mut bytes, 0); // no snapshots
    put64(&mut bytes, 0);
    if options.version == Qcow2Version::V3 {
        put_version_3(&mut bytes, options);
    }
    bytes
}

fn put_version_3(bytes: &mut Vec<u8>, options: &Qcow2CreateOptions) {
    let zstd = options.compression == Qcow2Compression::Zstd;
    put64(bytes, if zstd { COMPRESSION_TYPE } else { 0 });
    put64(bytes, if options.lazy_refcounts { LAZY_REFCOUNTS } else { 0 });
    put64(bytes, 0); // autoclear features
    put32(bytes, options.refcount_bits.trailing_zeros());
    put32(bytes, V3_LEN);
    bytes.extend([u8::from(zstd), 0, 0, 0, 0, 0, 0, 0]);
}

fn header_len(options: &Qcow2CreateOptions) -> usize {
    match options.version {
        Qcow2Version::V2 => V2_LEN,
        Qcow2Version::V3 => usize::try_from(V3_LEN).expect("112 fits"),
    }
}

/// Bytes that a backing file name may have in the first cluster.
pub(crate) fn room_for_name(options: &Qcow2CreateOptions) -> usize {
    let without_names = header_len(options) + backing_format(options).len() + 8;
    cluster_len(options).saturating_sub(without_names)
}

/// The extensions and their end mark. The feature names are for error messages only: they stay
/// away where the first cluster has no room for them.
fn extensions(options: &Qcow2CreateOptions) -> Vec<u8> {
    let mut bytes = backing_format(options);
    let name_len = options.backing.as_ref().map_or(0, |backing| backing.name.len());
    let names = feature_names();
    let needed =
        header_len(options) + bytes.len() + names.len() + END_OF_EXTENSIONS.len() + name_len;
    if options.version == Qcow2Version::V3 && needed <= cluster_len(options) {
        bytes.extend(names);
    }
    bytes.extend(END_OF_EXTENSIONS);
    bytes
}

fn backing_format(options: &Qcow2CreateOptions) -> Vec<u8> {
    let format = options.backing.as_ref().and_then(|backing| backing.format.as_deref());
    format.map_or_else(Vec::new, |format| extension(BACKING_FORMAT_EXTENSION, format.as_bytes()))
}

fn feature_names() -> Vec<u8> {
    let mut table = Vec::new();
    for (class, bit, name) in FEATURE_NAMES {
        table.extend([class, bit]);
        let mut field = [0; FEATURE_NAME_LEN];
        field[..name.len()].copy_from_slice(name.as_bytes());
        table.extend(field);
    }
    extension(FEATURE_NAMES_EXTENSION, &table)
}

/// A header extension: type, length, payload, padding to eight bytes.
fn extension(kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put32(&mut bytes, kind);
    put32(&mut bytes, narrow(payload.len()));
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn cluster_len(options: &Qcow2CreateOptions) -> usize {
    usize::try_from(options.cluster_len).expect("at most 2 MiB")
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("everything here fits one cluster")
}

fn put32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_be_bytes());
}

fn put64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(value.to_be_bytes());
}
