//! Small files of each kind, and the conversions.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use qed_check::recovery_hook;
use qed_convert::in_place::{
    FromRawOptions, PlanStore, ToQcow2Options, ToRawOptions, qed_to_qcow2, qed_to_raw, raw_to_qed,
};
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, GivenBacking, Identity, Image, Layout, LockPolicy,
    RecoveryPolicy, WriteContext, ZeroMode, create,
};
use qed_fuzz::{SparseContent, disk_of, raw_backing};
use qed_io::Storage;
use qed_spec::{Epoch, Geometry, GuestOffset, ImageUuid};

const IDENTITY: Identity = Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(8) };

/// What becomes what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToQcow2,
    FromRaw,
    ToRaw,
}

/// A file, and what its disk reads as.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) direction: Direction,
    pub(crate) start: SparseContent,
    pub(crate) disk: Vec<u8>,
    pub(crate) gate: GivenBacking,
    cluster_len: u32,
}

/// A plan in memory. It is durable before the file changes, so every state of the file has it.
#[derive(Default)]
pub(crate) struct Kept(RefCell<Option<Vec<u8>>>, RefCell<Option<Vec<u8>>>);

impl Kept {
    /// One that holds what the store held last before it was emptied.
    pub(crate) fn after_crash(&self) -> Self {
        Self(RefCell::new(self.1.borrow().clone()), RefCell::default())
    }
}

impl PlanStore for Kept {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().clone())
    }

    fn save(&self, plan: &[u8]) -> io::Result<()> {
        self.0.replace(Some(plan.to_vec()));
        self.1.replace(Some(plan.to_vec()));
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        self.0.replace(None);
        Ok(())
    }
}

pub(crate) fn all() -> Vec<Case> {
    let journal = Layout::Journal { identity: IDENTITY, ring_len_bytes: 32 << 10 };
    let mut cases = Vec::new();
    for (name, layout) in
        [("classic", Layout::Classic), ("compat", Layout::Compat(IDENTITY)), ("journal", journal)]
    {
        for cluster in [4 << 10, 16 << 10] {
            for backing in [false, true] {
                for close in [true, false] {
                    let name = format!("{name} of {cluster}, backing {backing}, closed {close}");
                    cases.push(Case::qed(name, layout, cluster, backing, close));
                }
            }
        }
    }
    for (cluster_len, len) in [(4 << 10, 40_960), (16 << 10, 66_048), (16 << 10, 10_240)] {
        let raw =
            Case::raw(format!("{len} raw, clusters of {cluster_len}"), cluster_len, len, false);
        cases.push(raw.turned());
        cases.push(raw);
    }
    cases.push(Case::raw("a forged superblock".to_owned(), 16 << 10, 66_048, true));
    cases
}

/// Sectors that are all different.
fn sectors(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (sector, number) in bytes.chunks_mut(512).zip(1_u32..) {
        for (at, byte) in sector.iter_mut().enumerate() {
            *byte = seed ^ number.to_le_bytes()[at % 4].wrapping_add(u8::from(at % 7 == 0));
        }
    }
    bytes
}

impl Case {
    fn qed(name: String, layout: Layout, cluster: u32, backing: bool, close: bool) -> Self {
        let geometry = Geometry::new(cluster, 1).unwrap();
        let mut disk = vec![0; 24 * cluster as usize];
        let below = backing.then(|| sectors(9 * 4096, 0x11));
        if let Some(below) = &below {
            disk[..below.len()].copy_from_slice(below);
        }
        let named = || CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw };
        let image_size = disk.len() as u64;
        let options = CreateOptions { geometry, image_size, backing: backing.then(named), layout };
        let storage = disk_of(&SparseContent::default());
        create(&*storage, &options).unwrap();
        let gate = raw_backing(below.as_ref());
        let image = open(storage.clone(), &gate);
        for (at, len) in [(0, 3 * 512), (cluster as usize * 5 + 512, 9000), (disk.len() - 512, 512)]
        {
            let bytes = sectors(len, 0x40);
            image.write_at(&bytes, GuestOffset::new(at as u64)).unwrap();
            disk[at..at + len].copy_from_slice(&bytes);
        }
        let zeros = cluster as usize * 2..cluster as usize * 4;
        image
            .write_zeroes(
                GuestOffset::new(zeros.start as u64),
                zeros.len() as u64,
                ZeroMode::IfNeeded,
            )
            .unwrap();
        disk[zeros].fill(0);
        image.flush().unwrap();
        // What a crash leaves of an image that was not closed is what the flush made durable.
        let left = storage.content();
        image.close().unwrap();
        let start = if close { storage.content() } else { left };
        Self { name, direction: Direction::ToQcow2, start, disk, gate, cluster_len: cluster }
    }

    fn raw(name: String, cluster_len: u32, len: usize, forged: bool) -> Self {
        let mut disk = sectors(len, 0x22);
        if forged {
            // A superblock of a mode that nobody knows would keep the image from being opened.
            let mut builder =
                qed_spec::SuperblockBuilder::new(ImageUuid::new([6; 16]), Epoch::new(6));
            builder.set_section(qed_spec::SectionType::MODE, &99_u32.to_le_bytes()).unwrap();
            let bytes = builder.encode(qed_spec::Generation::new(1 << 40).unwrap());
            disk[8192..8192 + bytes.len()].copy_from_slice(&bytes);
        }
        let start = SparseContent::of(&disk);
        let (direction, gate) = (Direction::FromRaw, GivenBacking(None));
        Self { name, direction, start, disk, gate, cluster_len }
    }

    /// The QED image that it becomes, with zeros in its middle, to be turned back.
    fn turned(&self) -> Self {
        let storage = disk_of(&self.start);
        self.convert_on(storage.clone(), &Kept::default()).unwrap();
        let mut disk = self.disk.clone();
        let cluster = self.cluster_len as usize;
        if disk.len() > 3 * cluster {
            let image = open(storage.clone(), &self.gate);
            image
                .write_zeroes(GuestOffset::new(cluster as u64), cluster as u64, ZeroMode::IfNeeded)
                .unwrap();
            image.close().unwrap();
            disk[cluster..2 * cluster].fill(0);
        }
        let (name, start) = (format!("{}, turned", self.name), storage.content());
        let (direction, gate) = (Direction::ToRaw, GivenBacking(None));
        Self { name, direction, start, disk, gate, cluster_len: self.cluster_len }
    }

    /// The plan that stands beside a state of the file: none at the start.
    pub(crate) fn plan_of(&self, state: &dyn Storage) -> Kept {
        let kept = Kept::default();
        let is_start = SparseContent::of(&all_of(state)) == self.start;
        if !is_start && self.direction != Direction::ToQcow2 {
            self.convert_on(disk_of(&self.start), &kept).unwrap();
        }
        kept.after_crash()
    }

    pub(crate) fn convert_on(&self, storage: Arc<dyn Storage>, plan: &Kept) -> Result<(), String> {
        let (lock, recovery) = (LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
        match self.direction {
            Direction::ToQcow2 => {
                let options = ToQcow2Options { lock, recovery, backing_format: None };
                qed_to_qcow2(&storage, &options).map(|_| ()).map_err(|error| format!("{error:?}"))
            }
            Direction::FromRaw => {
                let options = FromRawOptions { lock, cluster_len: self.cluster_len };
                let done = raw_to_qed(&*storage, plan, &options);
                done.map(|_| ()).map_err(|error| format!("{error:?}"))
            }
            Direction::ToRaw => {
                let done = qed_to_raw(&storage, plan, &ToRawOptions { lock, recovery });
                done.map(|_| ()).map_err(|error| format!("{error:?}"))
            }
        }
    }
}

pub(crate) fn open(storage: Arc<dyn Storage>, gate: &GivenBacking) -> Image {
    let context = WriteContext::new(gate, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
    Image::open(storage, &context).unwrap()
}

fn all_of(storage: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(storage.len().unwrap()).unwrap()];
    storage.read_at(&mut bytes, 0).unwrap();
    bytes
}
