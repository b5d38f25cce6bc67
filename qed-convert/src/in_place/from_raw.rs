//! Raw to QED in place: every cluster stays where it is but the first, which is copied to the end.
//!
//! Owns the layout and the order of the steps. All of a raw file is the guest's, so nothing below
//! its end is written before the commit, and what a call after a crash has to know is in a plan
//! beside the file. Step names are those of docs/write-ordering.md.

use qed_core::LockPolicy;
use qed_io::{ImageLock, LockError, Storage};
use qed_spec::{
    AutoclearFeatures, CompatFeatures, Features, Geometry, Header, HeaderError, HeaderFields,
    HostOffset,
};
use thiserror::Error;

use crate::in_place::plan::geometry_for;
use crate::in_place::plan_file::{NotAPlan, Plan, PlanStore, Way};
use crate::in_place::step::{self, SECTOR_LEN, StepError, failed};

/// Bytes that are copied or written at a time, at most.
const PIECE: u64 = 256 << 10;
/// Offsets in a disk stay below 2^63.
const MAX_DISK_LEN: u64 = (1 << 63) - 512;
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
const QED_MAGIC: [u8; 4] = *b"QED\0";

/// How a raw file becomes a QED image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromRawOptions {
    /// Whether the image lock is taken.
    pub lock: LockPolicy,
    /// Bytes per cluster.
    pub cluster_len: u32,
}

/// What a conversion does, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromRawPlan {
    /// Cluster and table size of the QED image.
    pub geometry: Geometry,
    /// Bytes of the raw file, which are those of the disk.
    pub old_len: u64,
    /// Length of the file afterwards, in bytes.
    pub new_len: u64,
}

/// Why a raw file did not become a QED image in place. Unless the step was `commit` or `wipe`, it is
/// the raw file that it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FromRawError {
    /// Somebody else uses the file.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The storage failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A block device has no end to append to.
    #[error("a block device cannot be converted in place; use 'qed convert'")]
    BlockDevice,
    /// There is nothing to convert.
    #[error("the file is empty; use 'qed create'")]
    Empty,
    /// The disk would not be whole sectors.
    #[error("the file has {len} bytes, which is no multiple of 512; 'truncate -s %512' adds zeros")]
    Unaligned {
        /// Bytes.
        len: u64,
    },
    /// The file begins like an image.
    #[error("the file begins like a {format} image; state its format")]
    NotRaw {
        /// The name of the format.
        format: &'static str,
    },
    /// QEMU opens no image with clusters of this size and a disk of this size.
    #[error("clusters of {cluster_len} bytes cannot map {len} bytes in an image that QEMU opens")]
    Geometry {
        /// Bytes.
        cluster_len: u32,
        /// Bytes.
        len: u64,
    },
    /// The header would break a rule.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The plan beside the file is none.
    #[error("the plan beside the file")]
    Plan(#[from] NotAPlan),
    /// The plan beside the file is of another conversion, or the file has changed since.
    #[error("the plan beside the file does not fit it; if the file is sound, remove the plan")]
    OtherPlan,
}

/// Says what [`raw_to_qed`] would do, and changes nothing.
///
/// # Errors
/// What the conversion would be refused for, and failed reads.
pub fn plan_raw_to_qed(
    storage: &dyn Storage,
    options: &FromRawOptions,
) -> Result<FromRawPlan, FromRawError> {
    let len = storage.len().map_err(failed("scan"))?;
    Ok(Layout::plan(storage, options, len)?.summary())
}

/// Turns the raw file in `storage` into a QED image of QEMU's layout; durable when it returns.
///
/// The disk has the bytes of the file; its holes stay holes. The file is raw until sector 0 is
/// written. A call after a crash finishes what was committed, and else begins anew with the length
/// that the plan in `plans` says.
///
/// # Errors
/// What keeps the file from being converted, and the storage's errors.
pub fn raw_to_qed(
    storage: &dyn Storage,
    plans: &dyn PlanStore,
    options: &FromRawOptions,
) -> Result<FromRawPlan, FromRawError> {
    if options.lock == LockPolicy::Take {
        storage.lock(ImageLock::WRITE)?;
    }
    let Some(bytes) = plans.load().map_err(failed("plan"))? else {
        let len = storage.len().map_err(failed("scan"))?;
        return convert(storage, plans, options, len);
    };
    let plan = Plan::parse(&bytes)?;
    let sector = read_sector(storage)?;
    if plan.way != Way::RawToQed || ![plan.old, plan.new].contains(&sector) {
        return Err(FromRawError::OtherPlan);
    }
    if sector == plan.old {
        let found = storage.len().map_err(failed("scan"))?;
        if found < plan.raw_len {
            return Err(FromRawError::OtherPlan);
        }
        // Step "cut": what the call before appended.
        storage.set_len(plan.raw_len).and_then(|()| storage.flush()).map_err(failed("cut"))?;
        return convert(storage, plans, options, plan.raw_len);
    }
    let file_len = storage.len().map_err(failed("scan"))?;
    let header = Header::parse(&sector, file_len, Features::CLASSIC)?;
    let layout = Layout { geometry: header.geometry(), len: plan.raw_len };
    layout.finish(storage, plans)?;
    Ok(layout.summary())
}

fn convert(
    storage: &dyn Storage,
    plans: &dyn PlanStore,
    options: &FromRawOptions,
    len: u64,
) -> Result<FromRawPlan, FromRawError> {
    let layout = Layout::plan(storage, options, len)?;
    let new = layout.header_sector()?;
    let plan = Plan { way: Way::RawToQed, raw_len: len, old: read_sector(storage)?, new };
    plans.save(&plan.encode()).map_err(failed("plan"))?;
    if let Err(error) = layout.append(storage) {
        // The error that is returned says more than a file that stays long; the plan stays for it.
        let _ = storage.set_len(len).and_then(|()| storage.flush()).and_then(|()| plans.remove());
        return Err(error.into());
    }
    step::commit(storage, &new)?;
    layout.finish(storage, plans)?;
    Ok(layout.summary())
}

/// Where things go behind the end of the raw file: the copy of the first cluster, the L2 tables, the
/// L1 table.
#[derive(Debug, Clone, Copy)]
struct Layout {
    geometry: Geometry,
    /// Bytes of the raw file.
    len: u64,
}

impl Layout {
    fn plan(
        storage: &dyn Storage,
        options: &FromRawOptions,
        len: u64,
    ) -> Result<Self, FromRawError> {
        if !step::is_regular(storage) {
            return Err(FromRawError::BlockDevice);
        }
        if len == 0 {
            return Err(FromRawError::Empty);
        }
        if !len.is_multiple_of(SECTOR_LEN as u64) {
            return Err(FromRawError::Unaligned { len });
        }
        let sector = read_sector(storage)?;
        for (magic, format) in [(QED_MAGIC, "QED"), (QCOW2_MAGIC, "QCOW2")] {
            if sector.starts_with(&magic) {
                return Err(FromRawError::NotRaw { format });
            }
        }
        let cluster_len = options.cluster_len;
        let shape = geometry_for(len, cluster_len.into()).filter(|_| len <= MAX_DISK_LEN);
        let geometry = shape.ok_or(FromRawError::Geometry { cluster_len, len })?;
        Ok(Self { geometry, len })
    }

    fn summary(&self) -> FromRawPlan {
        FromRawPlan { geometry: self.geometry, old_len: self.len, new_len: self.end() }
    }

    fn clusters(&self) -> u64 {
        self.geometry.clusters_for(self.len).get()
    }

    /// Where the guest's first cluster goes.
    fn first_cluster(&self) -> u64 {
        self.clusters() << self.geometry.cluster_bits()
    }

    fn tables(&self) -> u64 {
        self.geometry.l1_entries_for(self.len)
    }

    fn table(&self, number: u64) -> u64 {
        let first = self.first_cluster() + self.geometry.cluster_size_bytes();
        first + number * self.geometry.table_size_bytes()
    }

    fn l1(&self) -> u64 {
        self.table(self.tables())
    }

    fn end(&self) -> u64 {
        self.table(self.tables() + 1)
    }

    fn header_sector(&self) -> Result<[u8; SECTOR_LEN], HeaderError> {
        let fields = HeaderFields {
            geometry: self.geometry,
            header_size_clusters: 1,
            features: Features::empty(),
            compat_features: CompatFeatures::empty(),
            autoclear_features: AutoclearFeatures::empty(),
            l1_table_offset: HostOffset::new(self.l1()),
            image_size: self.len,
        };
        Ok(Header::new(fields, self.end())?.encode_sector(&[0; SECTOR_LEN]))
    }

    /// Step "append": the first cluster, the tables.
    fn append(&self, storage: &dyn Storage) -> Result<(), StepError> {
        step::grow(storage, self.end())?;
        let cluster_len = self.geometry.cluster_size_bytes();
        step::copy(storage, 0..cluster_len.min(self.len), self.first_cluster(), PIECE)?;
        let entries = self.geometry.table_entries();
        let place = |cluster| match cluster {
            0 => self.first_cluster(),
            cluster => cluster * cluster_len,
        };
        for table in 0..self.tables() {
            let first = table * entries;
            let slots = (first..self.clusters().min(first + entries)).map(place);
            write_slots(storage, self.table(table), slots)?;
        }
        write_slots(storage, self.l1(), (0..self.tables()).map(|table| self.table(table)))
    }

    /// Step "wipe": nothing of the guest's is left in the header area, where a superblock could be
    /// read into it. Then the plan is over.
    fn finish(&self, storage: &dyn Storage, plans: &dyn PlanStore) -> Result<(), StepError> {
        let range = SECTOR_LEN as u64..self.geometry.cluster_size_bytes();
        storage.write_zeroes(range).map_err(failed("wipe"))?;
        storage.flush().map_err(failed("wipe"))?;
        plans.remove().map_err(failed("plan"))
    }
}

/// Writes 8-byte slots from `at` on.
fn write_slots(
    storage: &dyn Storage,
    at: u64,
    slots: impl Iterator<Item = u64>,
) -> Result<(), StepError> {
    let mut bytes = Vec::new();
    let mut at = at;
    for slot in slots {
        bytes.extend(slot.to_le_bytes());
        if bytes.len() as u64 == PIECE {
            storage.write_at(&bytes, at).map_err(failed("append"))?;
            at += PIECE;
            bytes.clear();
        }
    }
    storage.write_at(&bytes, at).map_err(failed("append"))
}

fn read_sector(storage: &dyn Storage) -> Result<[u8; SECTOR_LEN], StepError> {
    let mut sector = [0; SECTOR_LEN];
    storage.read_at(&mut sector, 0).map_err(failed("scan"))?;
    Ok(sector)
}
