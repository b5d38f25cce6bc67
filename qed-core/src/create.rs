//! Writing a new, empty image in the classic layout: header cluster, then the L1 table.

use qed_io::Storage;
use qed_spec::{
    AutoclearFeatures, BackingName, CompatFeatures, Features, Geometry, HEADER_LEN_BYTES, Header,
    HeaderFields, HostOffset,
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
}

/// The backing file of a new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateBacking {
    /// The name to record.
    pub name: Vec<u8>,
    /// Raw is recorded; the classic layout cannot record any other format.
    pub format: BackingFormat,
}

impl CreateOptions {
    /// An image of `image_size` bytes with clusters of 64 KiB, tables of 4 clusters and no backing
    /// file, which is what QEMU creates by default.
    #[must_use]
    pub fn new(image_size: u64) -> Self {
        let geometry = Geometry::new(1 << 16, 4).expect("the default shape is legal");
        Self { geometry, image_size, backing: None }
    }
}

/// Replaces what `storage` holds by a new empty image; durable when it returns.
///
/// The bytes are those that QEMU writes for the same options. The header comes last, so an
/// interrupted creation leaves no image.
///
/// # Errors
/// Options that break a rule are found before anything is written.
// spec: QED-HDR-01, QED-BACK-01
pub fn create(storage: &dyn Storage, options: &CreateOptions) -> Result<Header, CreateError> {
    let (header, front) = header_area(options)?;
    storage.set_len(0)?;
    storage.set_len(empty_len(options.geometry))?;
    storage.flush()?;
    storage.write_at(&front, 0)?;
    storage.flush()?;
    Ok(header)
}

/// The header of a new image and the first bytes of its header area: the header, then the backing
/// file name. For writers that fill an image before its header makes it one.
///
/// # Errors
/// Options that break a rule.
pub fn header_area(options: &CreateOptions) -> Result<(Header, Vec<u8>), CreateError> {
    check_size(options.image_size)?;
    let geometry = options.geometry;
    let file_len = empty_len(geometry);
    let fields = HeaderFields {
        geometry,
        header_size_clusters: 1,
        features: Features::empty(),
        compat_features: CompatFeatures::empty(),
        autoclear_features: AutoclearFeatures::empty(),
        l1_table_offset: HostOffset::new(geometry.cluster_size_bytes()),
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
    Ok((header, front))
}

/// Bytes of the file of an image without data: one cluster of header area and the L1 table.
fn empty_len(geometry: Geometry) -> u64 {
    geometry.cluster_size_bytes() + geometry.table_size_bytes()
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
