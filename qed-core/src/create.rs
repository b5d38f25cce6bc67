//! Writing a new, empty image: header area, then the L1 table.

use qed_io::Storage;
use qed_spec::{
    AutoclearFeatures, BackingName, CompatFeatures, ConsistencyMode, DirtyBitmap, Epoch, Features,
    Generation, Geometry, HEADER_LEN_BYTES, Header, HeaderFields, HostOffset, ImageUuid,
    SUPERBLOCK_LEN_BYTES, SectionType, SuperblockBuilder, SuperblockCopy,
};

use crate::backing::BackingFormat;
use crate::error::CreateError;
use crate::header_sector::check_size;

/// What a new image looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// Cluster and table size.
    pub geometry: Geometry,
    /// Bytes of the virtual disk, a multiple of 512.
    pub image_size: u64,
    /// The backing file, which is recorded and not opened.
    pub backing: Option<CreateBacking>,
    /// What the header area holds besides the header.
    pub layout: Layout,
}

/// The backing file of a new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateBacking {
    /// The name to record.
    pub name: Vec<u8>,
    /// Raw is recorded; the classic layout cannot record any other format.
    pub format: BackingFormat,
}

/// The header area of a new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One cluster with the header and the backing file name, byte for byte as QEMU writes it.
    Classic,
    /// Superblock and dirty bitmap too, in as many clusters as they need: after a crash only the
    /// tables that were being changed are checked. QEMU reads and writes such an image.
    Compat(Identity),
}

/// What tells an image from all others; random, unless a test wants the same bytes each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The identity of the image.
    pub uuid: ImageUuid,
    /// The number of its first run.
    pub epoch: Epoch,
}

/// The header area of a new image, for writers that fill an image before its header makes it one.
#[derive(Debug, Clone)]
pub struct NewHeaderArea {
    /// The header.
    pub header: Header,
    /// The bytes from offset 0: the header, then the backing file name. They are written last.
    pub front: Vec<u8>,
    superblock: Option<(SuperblockBuilder, DirtyBitmap)>,
}

impl CreateOptions {
    /// A classic image of `image_size` bytes with clusters of 64 KiB, tables of 4 clusters and no
    /// backing file, which is what QEMU creates by default.
    #[must_use]
    pub fn new(image_size: u64) -> Self {
        let geometry = Geometry::new(1 << 16, 4).expect("the default shape is legal");
        Self { geometry, image_size, backing: None, layout: Layout::Classic }
    }
}

impl NewHeaderArea {
    /// Bytes of the file of an image without data: the header area and the L1 table.
    #[must_use]
    pub fn empty_len(&self) -> u64 {
        let fields = self.header.fields();
        fields.l1_table_offset.get() + fields.geometry.table_size_bytes()
    }

    /// The superblock of an image that ends at `end`, and where it goes; none in a classic image.
    /// It is durable, as are the zeros of the dirty bitmap, before the front is written.
    ///
    /// # Panics
    /// Never: the sections of a new image fit.
    // spec: QED-SB-12, QED-DIRTY-06
    #[must_use]
    pub fn superblock(&self, end: u64) -> Option<(HostOffset, [u8; SUPERBLOCK_LEN_BYTES])> {
        let (builder, bitmap) = self.superblock.as_ref()?;
        let mut builder = builder.clone();
        let payload = bitmap.with_epoch_size(end).encode();
        builder.set_section(SectionType::TABLE_DIRTY, &payload).expect("two sections fit");
        Some((SuperblockCopy::A.offset(), builder.encode(Generation::FIRST)))
    }
}

/// Replaces what `storage` holds by a new empty image; durable when it returns.
///
/// A classic one has the bytes that QEMU writes for the same options. The header comes last, so an
/// interrupted creation leaves no image.
///
/// # Errors
/// Options that break a rule are found before anything is written.
// spec: QED-HDR-01, QED-BACK-01
pub fn create(storage: &dyn Storage, options: &CreateOptions) -> Result<Header, CreateError> {
    let area = header_area(options)?;
    let end = area.empty_len();
    storage.set_len(0)?;
    storage.set_len(end)?;
    if let Some((at, superblock)) = area.superblock(end) {
        storage.write_at(&superblock, at.get())?;
    }
    storage.flush()?;
    storage.write_at(&area.front, 0)?;
    storage.flush()?;
    Ok(area.header)
}

/// The header area of a new image.
///
/// # Errors
/// Options that break a rule.
pub fn header_area(options: &CreateOptions) -> Result<NewHeaderArea, CreateError> {
    check_size(options.image_size)?;
    let geometry = options.geometry;
    let superblock = match options.layout {
        Layout::Classic => None,
        Layout::Compat(identity) => Some(compat(geometry, identity)),
    };
    let clusters = superblock.as_ref().map_or(1, |(_, it)| it.header_size_clusters(geometry));
    let header_len = clusters * geometry.cluster_size_bytes();
    let file_len = header_len + geometry.table_size_bytes();
    let mut autoclear_features = AutoclearFeatures::empty();
    autoclear_features.set(AutoclearFeatures::TABLE_DIRTY, superblock.is_some());
    let fields = HeaderFields {
        geometry,
        header_size_clusters: u32::try_from(clusters).expect("a bitmap has at most 512 KiB"),
        features: Features::empty(),
        compat_features: CompatFeatures::empty(),
        autoclear_features,
        l1_table_offset: HostOffset::new(header_len),
        image_size: options.image_size,
    };
    let mut header = Header::new(fields, file_len)?;
    let mut front = vec![0; HEADER_LEN_BYTES];
    if let Some(backing) = &options.backing {
        let name = BackingName::new(&backing.name)?;
        header = with_backing(header, name, backing.format, file_len)?;
        front.extend_from_slice(name.as_bytes());
    }
    front[..HEADER_LEN_BYTES].copy_from_slice(&header.encode());
    Ok(NewHeaderArea { header, front, superblock })
}

/// What a new image in compat mode has behind its header.
// spec: QED-MODE-01
fn compat(geometry: Geometry, identity: Identity) -> (SuperblockBuilder, DirtyBitmap) {
    let mut builder = SuperblockBuilder::new(identity.uuid, identity.epoch);
    let mode = ConsistencyMode::Compat.encode();
    builder.set_section(SectionType::MODE, &mode).expect("a section of 4 bytes fits");
    (builder, DirtyBitmap::of_new_image(geometry, 0))
}

fn with_backing(
    header: Header,
    name: BackingName<'_>,
    format: BackingFormat,
    file_len: u64,
) -> Result<Header, CreateError> {
    let fits = "a legal name has at most 4095 bytes";
    let offset = u32::try_from(HEADER_LEN_BYTES).expect("64 fits");
    let len = u32::try_from(name.as_bytes().len()).expect(fits);
    let header = header.with_backing_name_at(Some((offset, len)), file_len)?;
    let mut fields = *header.fields();
    fields.features.set(Features::BACKING_FORMAT_NO_PROBE, format == BackingFormat::Raw);
    Ok(header.with_fields(fields, file_len)?)
}
