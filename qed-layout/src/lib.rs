//! Where things lie in a QED image file: the readers that an open image, a check and a conversion share.
//!
//! [`FirstSector`] and [`SuperblockBytes`] are the header and the copies of the superblock as they are
//! in the file, [`Roots`] is what the header names, a [`TableReader`] walks tables piece by piece without
//! their holes, [`DirtyBits`] and [`CrashLeft`] say which tables a crash left in doubt, and a
//! [`ClusterSet`] is what a walk remembers.
//!
//! **Invariant:** this crate reads and judges nothing. It has no allocator and no cache, so that a
//! checker that uses it shares neither with what it checks. It makes no operating system call.
#![forbid(unsafe_code)]

mod backing;
mod cluster_set;
mod dirty;
mod error;
mod header;
mod roots;
mod superblock;
mod table;

pub use backing::{StoredFormat, read_anchor, read_backing_name, read_stored_format};
pub use cluster_set::{ClusterSet, LocalSet, OverBudget, words};
pub use dirty::{Checked, CrashLeft, DirtyBits, Recovered};
pub use error::{ReadError, read};
pub use header::{FirstSector, SUPPORTED, SUPPORTED_WITHOUT_LOG};
pub use roots::{Root, Roots};
pub use superblock::{SuperblockBytes, stored_bitmap, stored_owner, stored_physical_size};
pub use table::{Piece, PieceBuffer, Pieces, TableReader};

#[cfg(test)]
mod tests {
    use qed_spec::{
        AutoclearFeatures, CompatFeatures, Epoch, Features, Generation, Geometry, Header,
        HeaderFields, HostOffset, ImageUuid, SectionType, SuperblockBuilder, SuperblockCopy,
    };

    /// Numbers of consistency modes.
    pub(crate) const COMPAT: u32 = 1;
    pub(crate) const JOURNAL: u32 = 2;

    pub(crate) const BITMAP_AT: usize = 16384;

    /// Of an image of eight clusters with these feature bits, incompatible and autoclear.
    pub(crate) fn header(features: u64, autoclear: u64) -> Header {
        let fields = HeaderFields {
            geometry: Geometry::new(4096, 2).unwrap(),
            header_size_clusters: 5,
            features: Features::from_bits_retain(features),
            compat_features: CompatFeatures::empty(),
            autoclear_features: AutoclearFeatures::from_bits_retain(autoclear),
            l1_table_offset: HostOffset::new(6 * 4096),
            image_size: 1 << 30,
        };
        Header::new(fields, 8 * 4096).unwrap()
    }

    /// The image with a superblock in copy B that says this mode, and a dirty bitmap of zeros.
    pub(crate) fn image(header: &Header, mode: u32) -> Vec<u8> {
        let mut builder = SuperblockBuilder::new(ImageUuid::new([5; 16]), Epoch::new(5));
        builder.set_section(SectionType::MODE, &mode.to_le_bytes()).unwrap();
        let bitmap = [BITMAP_AT as u64, 512, 8 * 4096].map(u64::to_le_bytes);
        builder.set_section(SectionType::TABLE_DIRTY, bitmap.as_flattened()).unwrap();
        let mut bytes = vec![0; 8 * 4096];
        bytes[..512].copy_from_slice(&header.encode_sector(&[0; 512]));
        let at = usize::try_from(SuperblockCopy::B.offset().get()).unwrap();
        bytes[at..at + 4096].copy_from_slice(&builder.encode(Generation::FIRST));
        bytes
    }
}
