//! Writing a new, empty image: header area, then the L1 table.

use qed_io::{Growth, Storage};
use qed_spec::{
    AutoclearFeatures, BackingName, CompatFeatures, ConsistencyMode, DirtyBitmap, Epoch, Features,
    Generation, Geometry, HEADER_LEN_BYTES, HEADER_SECTOR_LEN_BYTES, Header, HeaderFields,
    HostOffset, ImageUuid, JOURNAL_BLOCK_LEN_BYTES, JournalRing, JournalRingError, JournalSequence,
    PhysicalSize, SUPERBLOCK_LEN_BYTES, SectionType, StoredBackingFormat, SuperblockBuilder,
    SuperblockCopy,
};

use crate::backing::{BackingFormat, CreateBacking};
use crate::error::CreateError;
use crate::head::sector::check_size;

/// Bytes of the journal of a new image in journal mode, unless the caller asks for another length:
/// 256 blocks, which hold 43008 allocations at random places.
pub const DEFAULT_RING_LEN_BYTES: u64 = 1 << 20;

/// Zeros that are written to a device at a time.
const ZEROS_LEN: usize = 256 << 10;

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

/// The header area of a new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One cluster with the header and the backing file name, byte for byte as QEMU writes it.
    Classic,
    /// Superblock and dirty bitmap too, in as many clusters as they need: after a crash only the
    /// tables that were being changed are checked. QEMU reads and writes such an image.
    Compat(Identity),
    /// As compat, with a journal instead of dirty bits: after a crash only the journal is read. QEMU
    /// reads and writes such an image when it was closed, and refuses it otherwise.
    Journal {
        /// What tells the image from others.
        identity: Identity,
        /// Bytes of the journal's ring, whole blocks of 4096: 8 to 262144 of them.
        ring_len_bytes: u64,
    },
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
    superblock: Option<NewSuperblock>,
    /// Bytes of the block device that the image goes to; none if it goes to a file.
    device: Option<u64>,
}

/// The superblock of a new image, and what its sections name.
#[derive(Debug, Clone)]
struct NewSuperblock {
    builder: SuperblockBuilder,
    /// Where the dirty bitmap lies, or would lie after a change of the mode.
    bitmap: DirtyBitmap,
    /// In journal mode.
    ring: Option<JournalRing>,
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

    /// The same image on a block device of `capacity` bytes. There the header area but for the front and
    /// the L1 table, up to [`NewHeaderArea::empty_len`], are to be written as zeros, after the first sector
    /// was zeroed durably, which held the header of whatever was there.
    ///
    /// # Errors
    /// [`CreateError::DeviceTooSmall`].
    // spec: QED-DEV-01
    pub fn on_device(mut self, capacity: u64) -> Result<Self, CreateError> {
        let needed = self.empty_len();
        if capacity < needed {
            return Err(CreateError::DeviceTooSmall { capacity, needed });
        }
        if self.superblock.is_some() {
            let mut fields = *self.header.fields();
            fields.autoclear_features |= AutoclearFeatures::PHYSICAL_SIZE;
            self.header = self.header.with_fields(fields, needed)?;
            self.front[..HEADER_LEN_BYTES].copy_from_slice(&self.header.encode());
        }
        self.device = Some(capacity);
        Ok(self)
    }

    /// The superblock of an image that ends at `end`, and where it goes; none in a classic image.
    /// It is durable, as are the zeros of the dirty bitmap, before the front is written.
    ///
    /// # Panics
    /// If `end` is not the end of a cluster of the image, or on a device past its capacity.
    // spec: QED-SB-12, QED-DIRTY-06, QED-DEV-01
    #[must_use]
    pub fn superblock(&self, end: u64) -> Option<(HostOffset, [u8; SUPERBLOCK_LEN_BYTES])> {
        let new = self.superblock.as_ref()?;
        let mut builder = new.builder.clone();
        let set = match new.ring {
            Some(ring) => builder.set_section(SectionType::JOURNAL, &ring.encode()),
            None => {
                let payload = new.bitmap.with_epoch_size(end).encode();
                builder.set_section(SectionType::TABLE_DIRTY, &payload)
            }
        };
        set.expect("three sections fit");
        if let Some(capacity) = self.device {
            let size = PhysicalSize::new(end, capacity, &self.header);
            let size = size.expect("the image ends with a cluster of the device");
            let set = builder.set_section(SectionType::PHYSICAL_SIZE, &size.encode());
            set.expect("four sections fit");
        }
        Some((SuperblockCopy::A.offset(), builder.encode(Generation::FIRST)))
    }

    /// The ring of the journal; none unless the image is in journal mode. Its bytes are written as
    /// zeros before the front is, so that no commit waits for the file system to find space.
    #[must_use]
    pub fn ring(&self) -> Option<JournalRing> {
        self.superblock.as_ref()?.ring
    }
}

/// Replaces what `storage` holds by a new empty image; durable when it returns.
///
/// A classic one in a file has the bytes that QEMU writes for the same options. The header comes last,
/// so an interrupted creation leaves no image. On a block device, which holds anything, the metadata is
/// written as zeros first; all else on it stays.
///
/// # Errors
/// Options that break a rule, and a block device that is smaller than the metadata of the image, are
/// found before anything is written.
// spec: QED-HDR-01, QED-BACK-01
pub fn create(storage: &dyn Storage, options: &CreateOptions) -> Result<Header, CreateError> {
    let mut area = header_area(options)?;
    let end = area.empty_len();
    match storage.growth() {
        Growth::Zeros => {
            storage.set_len(0)?;
            storage.set_len(end)?;
        }
        Growth::Stale => {
            area = area.on_device(storage.len()?)?;
            clear_device(storage, end)?;
        }
    }
    if let Some(ring) = area.ring() {
        qed_journal::format(storage, &ring)?;
    }
    if let Some((at, superblock)) = area.superblock(end) {
        storage.write_at(&superblock, at.get())?;
    }
    storage.flush()?;
    storage.write_at(&area.front, 0)?;
    storage.flush()?;
    Ok(area.header)
}

/// Step "void": from here on a device holds no image. Then zeros up to `end`, by writing, so that a device
/// which finds space only for what is written has found it.
fn clear_device(storage: &dyn Storage, end: u64) -> Result<(), CreateError> {
    let zeros = vec![0; ZEROS_LEN];
    storage.write_at(&zeros[..HEADER_SECTOR_LEN_BYTES], 0)?;
    storage.flush()?;
    for at in (0..end).step_by(ZEROS_LEN) {
        let len = usize::try_from(end - at).unwrap_or(ZEROS_LEN).min(ZEROS_LEN);
        storage.write_at(&zeros[..len], at)?;
    }
    Ok(())
}

/// The header area of a new image, in a file.
///
/// # Errors
/// Options that break a rule.
pub fn header_area(options: &CreateOptions) -> Result<NewHeaderArea, CreateError> {
    check_size(options.image_size)?;
    let geometry = options.geometry;
    let mut superblock = new_superblock(geometry, options.layout)?;
    let clusters = superblock.as_ref().map_or(1, |new| new.header_size_clusters(geometry));
    let header_len = clusters * geometry.cluster_size_bytes();
    let file_len = header_len + geometry.table_size_bytes();
    let mut autoclear_features = AutoclearFeatures::empty();
    match options.layout {
        Layout::Classic => {}
        Layout::Compat(_) => autoclear_features |= AutoclearFeatures::TABLE_DIRTY,
        Layout::Journal { .. } => autoclear_features |= AutoclearFeatures::JOURNAL,
    }
    let fields = HeaderFields {
        geometry,
        header_size_clusters: u32::try_from(clusters)
            .expect("a bitmap and a ring have at most 1.1 GiB"),
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
        header = with_backing(header, name, &backing.format, file_len)?;
        if let (BackingFormat::Named(format), Some(new)) = (&backing.format, &mut superblock) {
            let stored = StoredBackingFormat::new(format, name)?;
            new.builder.set_backing_format(&stored).expect("a section of 36 bytes fits");
        }
        front.extend_from_slice(name.as_bytes());
    }
    front[..HEADER_LEN_BYTES].copy_from_slice(&header.encode());
    Ok(NewHeaderArea { header, front, superblock, device: None })
}

/// What a new image has behind its header, but for a classic one.
// spec: QED-MODE-01, QED-JRN-02
fn new_superblock(
    geometry: Geometry,
    layout: Layout,
) -> Result<Option<NewSuperblock>, JournalRingError> {
    let bitmap = DirtyBitmap::of_new_image(geometry, 0);
    let (identity, mode, ring) = match layout {
        Layout::Classic => return Ok(None),
        Layout::Compat(identity) => (identity, ConsistencyMode::Compat, None),
        Layout::Journal { identity, ring_len_bytes } => {
            let ring = ring_behind(&bitmap, ring_len_bytes)?;
            (identity, ConsistencyMode::Journal, Some(ring))
        }
    };
    let mut builder = SuperblockBuilder::new(identity.uuid, identity.epoch);
    builder.set_section(SectionType::MODE, &mode.encode()).expect("a section of 4 bytes fits");
    Ok(Some(NewSuperblock { builder, bitmap, ring }))
}

/// An empty ring behind the place of the dirty bitmap, so that the mode can be changed either way.
pub(crate) fn ring_behind(
    bitmap: &DirtyBitmap,
    len_bytes: u64,
) -> Result<JournalRing, JournalRingError> {
    let offset = bitmap.end().next_multiple_of(JOURNAL_BLOCK_LEN_BYTES as u64);
    JournalRing::new(HostOffset::new(offset), len_bytes, JournalSequence::FIRST)
}

impl NewSuperblock {
    /// Clusters of the header area, which holds all that the superblock names.
    fn header_size_clusters(&self, geometry: Geometry) -> u64 {
        let ring_end = self.ring.map_or(0, |ring| ring.end().get());
        self.bitmap.end().max(ring_end).div_ceil(geometry.cluster_size_bytes())
    }
}

fn with_backing(
    header: Header,
    name: BackingName<'_>,
    format: &BackingFormat,
    file_len: u64,
) -> Result<Header, CreateError> {
    let fits = "a legal name has at most 4095 bytes";
    let offset = u32::try_from(HEADER_LEN_BYTES).expect("64 fits");
    let len = u32::try_from(name.as_bytes().len()).expect(fits);
    let header = header.with_backing_name_at(Some((offset, len)), file_len)?;
    let mut fields = *header.fields();
    fields.features.set(Features::BACKING_FORMAT_NO_PROBE, *format == BackingFormat::Raw);
    Ok(header.with_fields(fields, file_len)?)
}
