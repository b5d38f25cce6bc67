//! QED to raw in place, where every cluster lies where the raw file has it: what a raw file was that
//! became a QED image in place.
//!
//! Owns the order of the steps. As with the way there, what a call after a crash has to know is in a
//! plan beside the file. Step names are those of docs/write-ordering.md.

use std::ops::Range;
use std::sync::Arc;

use qed_core::{
    ExtentKind, Layout, LockPolicy, ReadContext, ReadOnlyImage, RecoveryPolicy, RefuseBacking,
    amend,
};
use qed_io::{ImageLock, Storage};
use qed_layout::{PieceBuffer, TableReader};
use qed_spec::{Anchor, GuestOffset, HostOffset, L1Entry, SuperblockCopy};

use crate::in_place::error::{InPlaceError, Refusal, Step, failed};
use crate::in_place::kept_plan::{Made, Plan, PlanFault, Tail, Way, inode_of};
use crate::in_place::plan_file::PlanStore;
use crate::in_place::step::{self, SECTOR, Sector};

/// How a QED image becomes a raw file.
#[derive(Debug, Clone)]
pub struct ToRawOptions<'a> {
    /// Whether the image lock is taken.
    pub lock: LockPolicy,
    /// What happens first if the image was not closed.
    pub recovery: RecoveryPolicy<'a>,
}

/// What a conversion does, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToRawPlan {
    /// Length of the file before, in bytes.
    pub old_len: u64,
    /// Bytes of the disk, which are those of the file afterwards.
    pub new_len: u64,
}

/// Says what [`qed_to_raw`] would do, and changes nothing.
///
/// # Errors
/// What the conversion would be refused for, and failed reads.
pub fn plan_qed_to_raw(
    storage: &Arc<dyn Storage>,
    options: &ToRawOptions<'_>,
) -> Result<ToRawPlan, InPlaceError> {
    let image = open(storage, options.lock)?;
    Ok(Moves::plan(&image)?.summary)
}

/// Turns the QED image in `storage` into a raw file; durable when it returns.
///
/// The image gets QEMU's layout first, with what recovery it needs. It is a QED image until sector 0 is
/// written. A call after a crash finishes what was committed, and else begins anew.
///
/// # Errors
/// What keeps the image from being converted, and the storage's errors.
pub fn qed_to_raw(
    storage: &Arc<dyn Storage>,
    plans: &dyn PlanStore,
    options: &ToRawOptions<'_>,
) -> Result<ToRawPlan, InPlaceError> {
    if options.lock == LockPolicy::Take {
        storage.lock(ImageLock::WRITE)?;
    }
    if let Some(bytes) = plans.load().map_err(failed(Step::Plan))?
        && let Some(done) = resume(&**storage, plans, &bytes)?
    {
        return Ok(done);
    }
    // What is refused is refused before the image loses its mode.
    Moves::plan(&open(storage, LockPolicy::None)?)?;
    amend(storage, Layout::Classic, LockPolicy::None, options.recovery)?;
    let image = open(storage, LockPolicy::None)?;
    let moves = Moves::plan(&image)?;
    moves.convert(storage, plans)?;
    Ok(moves.summary)
}

/// Finishes what was committed; none if the conversion begins anew.
fn resume(
    storage: &dyn Storage,
    plans: &dyn PlanStore,
    plan: &[u8],
) -> Result<Option<ToRawPlan>, InPlaceError> {
    let shown = || plans.shown();
    let plan = Plan::parse(plan).ok_or_else(|| PlanFault::NotAPlan { plan: shown() })?;
    let sector = step::read(storage, 0)?;
    let is_new = sector == plan.new;
    let fits = is_new || sector == plan.old;
    if plan.way != Way::QedToRaw || !plan.is_of(storage) || !fits {
        return Err(PlanFault::OtherPlan { plan: shown() }.into());
    }
    if !is_new {
        return Ok(None);
    }
    let (len, raw_len) = (step::len(storage)?, plan.raw_len);
    // A plan of an earlier version does not say what may be cut.
    let is_ours = |made: &Made| made.tail.is_behind(storage, raw_len);
    if len != raw_len && !plan.made.as_ref().map_or(Ok(false), is_ours)? {
        return Err(match len < raw_len {
            true => PlanFault::Shrunk { plan: shown(), len, raw_len },
            false => PlanFault::Grown { plan: shown(), len, raw_len },
        }
        .into());
    }
    finish(storage, plans, raw_len)?;
    Ok(Some(ToRawPlan { old_len: len, new_len: raw_len }))
}

fn open(storage: &Arc<dyn Storage>, lock: LockPolicy) -> Result<ReadOnlyImage, InPlaceError> {
    Ok(ReadOnlyImage::open(storage.clone(), &ReadContext::new(&RefuseBacking, lock))?)
}

/// Step "cut": the file ends with the disk. Then the plan is over.
fn finish(storage: &dyn Storage, plans: &dyn PlanStore, len: u64) -> Result<(), InPlaceError> {
    step::set_len(storage, Step::Cut, len)?;
    step::flush(storage, Step::Cut)?;
    plans.remove().map_err(failed(Step::Plan))
}

/// What has to be written for the file to read as the disk.
struct Moves {
    summary: ToRawPlan,
    /// The guest's first cluster.
    first: Vec<u8>,
    /// Runs of the file that are to be zeros.
    zeros: Runs,
}

impl Moves {
    fn plan(image: &ReadOnlyImage) -> Result<Self, InPlaceError> {
        let storage = &**image.storage();
        if !step::is_regular(storage) {
            return Err(Refusal::BlockDevice.into());
        }
        if image.backing_name().is_some() {
            return Err(Refusal::HasBacking.into());
        }
        let size = image.image_size();
        if size == 0 {
            return Err(Refusal::EmptyDisk.into());
        }
        let old_len = step::len(storage)?;
        let cluster_len = image.geometry().cluster_size_bytes();
        let (elsewhere, zeros) = runs(image, cluster_len)?;
        let mut in_the_way = tables(image)?;
        in_the_way.extend(elsewhere);
        // The runs of zeros are in order and do not overlap.
        for taken in in_the_way {
            let behind = zeros.partition_point(|zero| zero.end <= taken.start);
            if let Some(zero) = zeros.get(behind).filter(|zero| zero.start < taken.end) {
                return Err(Refusal::InTheWay { host: taken.start.max(zero.start) }.into());
            }
        }
        let mut first = vec![0; usize::try_from(cluster_len).expect("at most 64 MiB")];
        let there = usize::try_from(size.min(cluster_len)).expect("at most 64 MiB");
        image.read_at(&mut first[..there], GuestOffset::new(0))?;
        if reads_like_qed(&first) {
            return Err(Refusal::LooksLikeQed.into());
        }
        Ok(Self { summary: ToRawPlan { old_len, new_len: size }, first, zeros })
    }

    fn convert(
        &self,
        storage: &Arc<dyn Storage>,
        plans: &dyn PlanStore,
    ) -> Result<(), InPlaceError> {
        let (storage, len) = (&**storage, self.summary.new_len);
        let (new, rest) = self.first.split_at(SECTOR);
        let new: Sector = new.try_into().expect("split there");
        let old = step::read(storage, 0)?;
        let made = Some(self.made(storage)?);
        let plan = Plan { way: Way::QedToRaw, raw_len: len, old, new, made };
        plans.save(&plan.encode()).map_err(failed(Step::Plan))?;
        // Step "prepare": what no entry names gets the bytes that the raw file has there.
        for range in &self.zeros {
            let end = range.end.min(self.summary.old_len);
            step::wipe(storage, range.start.min(end)..end, Step::Prepare)?;
        }
        step::write(storage, Step::Prepare, rest, SECTOR as u64)?;
        step::commit(storage, &new)?;
        finish(storage, plans, len)
    }
}

impl Moves {
    /// What tells the file from any other once it is raw and not cut yet.
    fn made(&self, storage: &dyn Storage) -> Result<Made, InPlaceError> {
        let ToRawPlan { old_len, new_len } = self.summary;
        let cluster_len = self.first.len() as u64;
        // Of a disk shorter than a cluster the rest of the first cluster is written too.
        let in_first = usize::try_from(new_len.min(cluster_len)).expect("at most 64 MiB");
        let behind = new_len.max(cluster_len)..old_len;
        let mut tail = Tail::default();
        tail.add(&self.first[in_first..]);
        tail.add_file(storage, behind)?;
        Ok(Made { inode: inode_of(storage), tail })
    }
}

/// Runs of bytes of the file.
type Runs = Vec<Range<u64>>;

/// Where the first cluster lies, and the runs of the disk behind it that are zeros.
///
/// # Errors
/// Any other cluster that is not where the raw file has it.
fn runs(image: &ReadOnlyImage, cluster_len: u64) -> Result<(Runs, Runs), InPlaceError> {
    let (size, mut first, mut zeros) = (image.image_size(), Vec::new(), Runs::new());
    let mut at = 0;
    while at < size {
        let most = if at == 0 { cluster_len.min(size) } else { size - at };
        let extent = image.map(GuestOffset::new(at), most)?;
        let end = at + extent.len;
        match extent.kind {
            ExtentKind::Data(host) if at == 0 => first.push(host.get()..host.get() + cluster_len),
            ExtentKind::Data(host) if host.get() == at => {}
            ExtentKind::Data(host) => {
                return Err(Refusal::Elsewhere { guest: at, host: host.get() }.into());
            }
            ExtentKind::Zero | ExtentKind::Unallocated if at > 0 => match zeros.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => zeros.push(at..end),
            },
            ExtentKind::Zero | ExtentKind::Unallocated => {}
        }
        at = end;
    }
    Ok((first, zeros))
}

/// Where the tables lie.
fn tables(image: &ReadOnlyImage) -> Result<Runs, InPlaceError> {
    let (geometry, storage) = (image.geometry(), &**image.storage());
    let table_len = geometry.table_size_bytes();
    let l1 = image.header().fields().l1_table_offset;
    let mut tables = Runs::new();
    tables.push(l1.get()..l1.get() + table_len);
    let reader = TableReader::new(storage, step::len(storage)?, table_len);
    reader.for_each(reader.pieces(l1), &mut PieceBuffer::default(), |_, value| {
        if let Ok(L1Entry::Table(cluster)) = L1Entry::decode(value, geometry) {
            let start = geometry.host_offset(cluster).get();
            tables.push(start..start.saturating_add(table_len));
        }
        Ok::<(), InPlaceError>(())
    })?;
    Ok(tables)
}

/// Whether the guest's first cluster begins like a QED image, or holds an anchor or a superblock, which
/// a crash before the commit would leave to be believed.
fn reads_like_qed(area: &[u8]) -> bool {
    let [a, b] = [SuperblockCopy::A, SuperblockCopy::B].map(SuperblockCopy::offset);
    let places = [HostOffset::new(0), Anchor::OFFSET, a, b];
    let begins = |at: HostOffset| {
        let at = usize::try_from(at.get()).unwrap_or(usize::MAX);
        area.get(at..).is_some_and(|bytes| bytes.starts_with(b"QED"))
    };
    places.into_iter().any(begins)
}
