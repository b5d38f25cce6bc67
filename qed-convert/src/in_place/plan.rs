//! What a conversion from QCOW2 will do, worked out before anything is written; then doing it.

use std::fmt;
use std::sync::Arc;

use qed_core::{GivenBacking, Identity, LockPolicy, VirtualDisk};
use qed_io::{Growth, Storage};
use qed_layout::SUPPORTED_WITHOUT_LOG;
use qed_spec::{
    AutoclearFeatures, CompatFeatures, Features, Geometry, Header, HeaderFields, HostOffset,
    UndoRecord,
};

use super::area;
use super::area::{Area, Found, RECORD_AREA_START};
use super::scan::{Scan, scan};
use super::translate::append;
use super::undo::leftover;
use super::verify::compare;
use crate::in_place::error::{InPlaceError, Refusal, Step};
use crate::in_place::step::{SECTOR, Sector, flush, len, read, set_len, write};
use crate::qcow2::{Qcow2Header, Qcow2Image, Qcow2Options};

/// Smallest cluster of QED in bytes.
const MIN_CLUSTER: u64 = 4096;
/// From this cluster size on L1 and L2 tables may have 8 and 16 clusters.
const LARGE_TABLES_FROM: u64 = 64 << 10;
/// Up to this cluster size tables have 4 clusters rather than 2.
const FOUR_UP_TO: u64 = 128 << 10;

/// What the caller decides.
#[derive(Debug, Clone, Copy)]
pub struct ToQedOptions {
    /// Internal snapshots are given up; until the image is written to or finalized, undoing the
    /// conversion brings them back.
    pub drop_snapshots: bool,
    /// What tells the image from others, where the format of its backing file has to be stored.
    pub identity: Identity,
}

/// What a conversion does, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlacePlan {
    /// Bytes of the virtual disk.
    pub image_size: u64,
    /// Bytes of a cluster, before and after.
    pub cluster_size: u64,
    /// Clusters of a table of the QED image.
    pub table_size_clusters: u64,
    /// Bytes of the file before and after.
    pub file_len: [u64; 2],
    /// Clusters of data that stay where they are.
    pub data_clusters: u64,
    /// Zero clusters.
    pub zero_clusters: u64,
    /// Compressed clusters and such with subclusters of several kinds: they are appended.
    pub copied_clusters: u64,
    /// What the QED image will not have.
    pub dropped: Vec<Dropped>,
    /// The backing file is read for some of the clusters that are appended.
    pub needs_backing: bool,
    /// An interrupted conversion left something behind that is taken away first.
    pub resumes: bool,
}

impl InPlacePlan {
    /// Whether no program but one that knows of conversions opens the image while the conversion can
    /// be undone: what is dropped shares clusters with the disk, or counts its writes.
    // spec: QED-CONV-05
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.dropped.iter().any(|it| !matches!(it, Dropped::Extension(_)))
    }
}

/// Something that QED has no place for. Undoing the conversion brings it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dropped {
    /// An internal snapshot, by its tag.
    Snapshot(Vec<u8>),
    /// A persistent dirty bitmap, by its name.
    Bitmap(Vec<u8>),
    /// A header extension that is not known, by its number.
    Extension(u32),
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(tag) => write!(f, "internal snapshot '{}'", tag.escape_ascii()),
            Self::Bitmap(name) => write!(f, "dirty bitmap '{}'", name.escape_ascii()),
            Self::Extension(kind) => write!(f, "header extension {kind:#x}, which is not known"),
        }
    }
}

/// Where things go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) geometry: Geometry,
    /// Offset of the first cluster that is appended.
    pub(super) copies: u64,
    /// Offset of the first L2 table.
    pub(super) tables: u64,
    /// Offset of the L1 table.
    pub(super) l1: u64,
    /// Byte after the last.
    pub(super) end: u64,
}

impl Places {
    /// Behind the first `base` bytes of the file; none if a file cannot be that long.
    fn behind(base: u64, geometry: Geometry, copied: u64, tables: u64) -> Option<Self> {
        let (cluster, table) = (geometry.cluster_size_bytes(), geometry.table_size_bytes());
        let copies = base.checked_next_multiple_of(cluster)?;
        let first_table = copies.checked_add(copied.checked_mul(cluster)?)?;
        let l1 = first_table.checked_add(tables.checked_mul(table)?)?;
        let end = l1.checked_add(table).filter(|end| i64::try_from(*end).is_ok())?;
        Some(Self { geometry, copies, tables: first_table, l1, end })
    }

    /// Those of an image that was converted when the file had `base` bytes.
    pub(super) fn of(qed: &Header, scan: &Scan, base: u64) -> Option<Self> {
        Self::behind(base, qed.geometry(), scan.copied, scan.tables)
    }
}

/// A QCOW2 image that can become a QED image, and how.
#[derive(Debug)]
pub struct ToQed {
    storage: Arc<dyn Storage>,
    header: Qcow2Header,
    sector: Sector,
    /// Bytes of the file without what an interrupted conversion left.
    base: u64,
    resumes: bool,
    places: Places,
    new_sector: Sector,
    area: Area,
    plan: InPlacePlan,
}

impl ToQed {
    /// Reads the QCOW2 image in `storage` and decides whether and how it is converted; writes
    /// nothing. The caller holds the image lock, for writing if the conversion is to be done.
    ///
    /// Memory: one bit for each cluster of the file, twice, and one table of either format.
    ///
    /// # Errors
    /// [`Refusal`] with the reason, and the command that helps where there is one; what is wrong
    /// with the image; failed reads.
    pub fn plan(storage: Arc<dyn Storage>, options: &ToQedOptions) -> Result<Self, InPlaceError> {
        if storage.growth() == Growth::Stale {
            return Err(Refusal::BlockDevice.into());
        }
        let file_len = len(&*storage)?;
        let header = Qcow2Header::read(&*storage)?;
        let dropped = dropped(&storage, &header, options)?;
        refuse(&header)?;
        let geometry = geometry(&header)?;
        let scan = scan(&*storage, &header, file_len, geometry)?;
        let sector = read(&*storage, 0)?;
        let left = leftover(&*storage, &header, file_len, scan.end)?;
        let base = left.unwrap_or(file_len);
        if left.is_none()
            && let Found::Unknown { at } = Area::found(&*storage, header.cluster_size())?
        {
            return Err(Refusal::UnknownBytes { at }.into());
        }
        let places = Places::behind(base, geometry, scan.copied, scan.tables)
            .ok_or(Refusal::FileTooLong { len: file_len })?;
        let plan = InPlacePlan {
            image_size: header.image_size(),
            cluster_size: header.cluster_size(),
            table_size_clusters: geometry.table_size_clusters(),
            file_len: [file_len, places.end],
            data_clusters: scan.data,
            zero_clusters: scan.zero,
            copied_clusters: scan.copied,
            dropped,
            needs_backing: scan.needs_backing,
            resumes: left.is_some(),
        };
        let qed = qed_header(&header, &places, plan.is_held())?;
        let new_sector = qed.encode_sector(&sector);
        let record = UndoRecord { old_len: base, old_sector: sector, new_sector };
        let area = Area::new(&header, &qed, options.identity, &record)?;
        let resumes = left.is_some();
        Ok(Self { storage, header, sector, base, resumes, places, new_sector, area, plan })
    }

    /// What will be done.
    #[must_use]
    pub fn report(&self) -> &InPlacePlan {
        &self.plan
    }

    /// Converts the image. `backing` is read where [`InPlacePlan::needs_backing`] says so.
    ///
    /// Durable when it returns. Interrupted at any moment, the file is the QCOW2 image, which QEMU
    /// may go on to use and which can be converted again, or the QED image.
    ///
    /// # Errors
    /// What failed; the image is what it was, unless it is [`InPlaceError::InDoubt`].
    // spec: QED-CONV-06
    pub fn convert(self, backing: Option<&Arc<dyn VirtualDisk>>) -> Result<(), InPlaceError> {
        let storage = &*self.storage;
        if self.resumes {
            area::clean(storage, self.base, self.area.len())?;
        }
        let prepared = self.prepare(backing);
        prepared.map_err(|error| self.give_up(error))?;
        // Step "commit": one sector, and the file is QED.
        write(storage, Step::Commit, &self.new_sector, 0)
            .and_then(|()| flush(storage, Step::Commit))
            .map_err(|error| self.give_up(error))
    }

    /// Everything before the first sector.
    fn prepare(&self, backing: Option<&Arc<dyn VirtualDisk>>) -> Result<(), InPlaceError> {
        let storage = &*self.storage;
        // Step "record": before anything is appended, so that what is there can be told apart.
        write(storage, Step::Record, self.area.bytes(), RECORD_AREA_START)?;
        flush(storage, Step::Record)?;
        // Step "append": the tables are durable before anything names them.
        let gate = GivenBacking(backing.cloned());
        let image =
            Qcow2Image::open(self.storage.clone(), &Qcow2Options::new(&gate, LockPolicy::None))?;
        set_len(storage, Step::Append, self.places.end)?;
        append(storage, &image, self.base, &self.places)?;
        flush(storage, Step::Append)?;
        compare(storage, &self.header, self.base, &self.places, &self.new_sector)
    }

    /// Takes away what was written, unless the image is QED already.
    fn give_up(&self, error: InPlaceError) -> InPlaceError {
        let storage = &*self.storage;
        match read::<SECTOR>(storage, 0) {
            Ok(found) if found == self.sector => {
                // The file is as good with what is left as without: the first error is told.
                let _cleaned = area::clean(storage, self.base, self.area.len());
                error
            }
            _ => InPlaceError::InDoubt,
        }
    }
}

/// What QED has no place for.
fn dropped(
    storage: &Arc<dyn Storage>,
    header: &Qcow2Header,
    options: &ToQedOptions,
) -> Result<Vec<Dropped>, InPlaceError> {
    let count = header.snapshot_count();
    if count > 0 && !options.drop_snapshots {
        return Err(Refusal::Snapshots { count }.into());
    }
    let image = Qcow2Image::open(
        storage.clone(),
        &Qcow2Options::new(&GivenBacking(None), LockPolicy::None),
    )?;
    let snapshots = image.snapshots().iter().map(|it| Dropped::Snapshot(it.name.clone()));
    let bitmaps = image.read_bitmaps()?.into_iter().map(|it| Dropped::Bitmap(it.name));
    let unknown = header.unknown_extensions().iter().map(|kind| Dropped::Extension(*kind));
    Ok(snapshots.chain(bitmaps).chain(unknown).collect())
}

fn refuse(header: &Qcow2Header) -> Result<(), Refusal> {
    if header.is_corrupt() {
        return Err(Refusal::MarkedCorrupt);
    }
    if header.used_end() > Area::NAMES_END {
        return Err(Refusal::HeaderArea { end: header.used_end() });
    }
    if header.cluster_size() < MIN_CLUSTER {
        return Err(Refusal::ClusterSize { len: header.cluster_size() });
    }
    Ok(())
}

/// The shape of the QED image: the same clusters, tables with room to grow.
fn geometry(header: &Qcow2Header) -> Result<Geometry, Refusal> {
    let (size, cluster_size) = (header.image_size(), header.cluster_size());
    geometry_for(size, cluster_size).ok_or(Refusal::TooLarge { size, cluster_size })
}

/// The shape of an image of `size` bytes that QEMU opens too, with room to grow where it can be.
pub(super) fn geometry_for(size: u64, cluster_size: u64) -> Option<Geometry> {
    let preferred: &[u32] = if cluster_size <= FOUR_UP_TO { &[4, 8, 16] } else { &[2, 4, 8, 16] };
    let most = if cluster_size < LARGE_TABLES_FROM { 4 } else { 16 };
    let shapes = preferred
        .iter()
        .filter(|clusters| **clusters <= most)
        .filter_map(|clusters| Geometry::new(u32::try_from(cluster_size).ok()?, *clusters));
    shapes.filter(|shape| shape.opens_in_qemu()).find(|shape| shape.max_image_size_bytes() >= size)
}

fn qed_header(header: &Qcow2Header, places: &Places, holds: bool) -> Result<Header, InPlaceError> {
    let mut features = Features::empty();
    features.set(Features::CONVERSION_HOLD, holds);
    let fields = HeaderFields {
        geometry: places.geometry,
        header_size_clusters: 1,
        features,
        compat_features: CompatFeatures::empty(),
        autoclear_features: AutoclearFeatures::CONVERSION_UNDO,
        l1_table_offset: HostOffset::new(places.l1),
        image_size: header.image_size(),
    };
    let qed = Header::new(fields, places.end)?;
    // The name stays where it is, below byte 2048.
    let narrow = |value: u64| u32::try_from(value).expect("inside cluster 0");
    let name = header.name_place().map(|(offset, len)| (narrow(offset), narrow(len)));
    let qed = qed.with_backing_name_at(name, places.end)?;
    let mut fields = *qed.fields();
    let is_raw = name.is_some() && header.backing_format() == Some(b"raw");
    fields.features.set(Features::BACKING_FORMAT_NO_PROBE, is_raw);
    let qed = qed.with_fields(fields, places.end)?;
    Ok(Header::parse(&qed.encode(), places.end, SUPPORTED_WITHOUT_LOG)?)
}
