//! An image with clusters of every kind, what its disk reads as, and what its file is used for.

use std::collections::BTreeSet;
use std::sync::Arc;

use qed_core::{
    AmendError, BackingGate, GivenBacking, Identity, Image, Layout, LockPolicy, ReadContext,
    ReadOnlyImage, RecoveryPolicy, VirtualDisk, ZeroMode, amend,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{
    Epoch, Features, Geometry, GuestOffset, Header, HostOffset, ImageUuid, Superblock,
    SuperblockChoice, SuperblockCopy,
};

use crate::support::{Bytes, new_storage_of, open};

const IDENTITY: Identity = Identity { uuid: ImageUuid::new([3; 16]), epoch: Epoch::new(4) };

pub(crate) const COMPAT: Layout = Layout::Compat(IDENTITY);

pub(crate) fn journal(ring_len_bytes: u64) -> Layout {
    Layout::Journal { identity: IDENTITY, ring_len_bytes }
}

pub(crate) fn amend_to(storage: &Arc<MemoryStorage>, layout: Layout) -> Result<(), AmendError> {
    let storage: Arc<dyn Storage> = storage.clone();
    amend(&storage, layout, LockPolicy::Take, RecoveryPolicy::Refuse)
}

/// An image, and places of its disk with what they hold: a sector of each.
pub(crate) struct Scene {
    pub(crate) storage: Arc<MemoryStorage>,
    pub(crate) gate: GivenBacking,
    geometry: Geometry,
    sectors: Vec<(u64, u8)>,
}

impl Scene {
    pub(crate) fn empty(layout: Layout, geometry: Geometry) -> Self {
        let storage = new_storage_of(layout, geometry, disk_size(geometry), false);
        Self { storage, gate: GivenBacking(None), geometry, sectors: Vec::new() }
    }

    /// Data in neighbouring clusters and in two tables, a zero cluster, and what was never written.
    pub(crate) fn new(layout: Layout, geometry: Geometry, backing: bool) -> Self {
        let storage = new_storage_of(layout, geometry, disk_size(geometry), backing);
        let cluster = geometry.cluster_size_bytes();
        let below = vec![0xbb; 30 * cluster as usize];
        let gate = GivenBacking(backing.then(|| Arc::new(Bytes(below)) as _));
        let mut scene = Self { storage, gate, geometry, sectors: Vec::new() };
        let image = scene.open();
        for number in 0..24 {
            scene.write(&image, number * cluster + 512, number as u8 + 1);
        }
        scene.write(&image, geometry.l2_coverage_bytes() + 3 * cluster, 100);
        image.write_zeroes(GuestOffset::new(25 * cluster), cluster, ZeroMode::IfNeeded).unwrap();
        image.close().unwrap();
        scene.sectors.push((25 * cluster, 0));
        scene.sectors.push((26 * cluster, if backing { 0xbb } else { 0 }));
        scene.sectors.push((2 * cluster, if backing { 0xbb } else { 0 }));
        scene
    }

    /// A cluster that was never written.
    pub(crate) fn free(&self) -> u64 {
        28 * self.geometry.cluster_size_bytes()
    }

    pub(crate) fn write_more(&mut self) {
        let image = self.open();
        self.check(&image, image.backing_name());
        self.write(&image, self.free(), 200);
        self.write(&image, self.free() + self.geometry.l2_coverage_bytes(), 201);
        self.write(&image, 512, 202);
        image.flush().unwrap();
        self.check(&image, image.backing_name());
        image.close().unwrap();
        self.assert_reads();
    }

    pub(crate) fn assert_reads(&self) {
        let image = self.open();
        self.check(&image, image.backing_name());
    }

    /// Another file shows the same disk to a reader, whatever it needs before it is written.
    pub(crate) fn assert_shown_by(&self, storage: Arc<MemoryStorage>) {
        let read = ReadContext::new(&self.gate, LockPolicy::None);
        let image = ReadOnlyImage::open(storage, &read).unwrap();
        self.check(&image, image.backing_name());
    }

    fn check(&self, image: &dyn VirtualDisk, name: Option<Vec<u8>>) {
        for (at, byte) in &self.sectors {
            let mut sector = [0xee; 512];
            image.read_at(&mut sector, *at).unwrap();
            assert_eq!(sector, [*byte; 512], "at {at:#x}");
        }
        assert_eq!(name, self.gate.0.as_ref().map(|_| b"base".to_vec()));
    }

    fn open(&self) -> Image {
        open_again(&self.storage, &self.gate)
    }

    fn write(&mut self, image: &Image, at: u64, byte: u8) {
        image.write_at(&[byte; 512], GuestOffset::new(at)).unwrap();
        self.sectors.retain(|(other, _)| *other != at);
        self.sectors.push((at, byte));
    }
}

/// Opens an image that needs no recovery.
pub(crate) fn open_again(storage: &Arc<MemoryStorage>, gate: &dyn BackingGate) -> Image {
    open(storage.clone(), gate)
}

/// Needs marks and slots for four tables.
fn disk_size(geometry: Geometry) -> u64 {
    3 * geometry.l2_coverage_bytes() + 512
}

pub(crate) fn header(storage: &MemoryStorage) -> Header {
    let bytes = storage.to_vec();
    Header::parse(&bytes, bytes.len() as u64, Features::CLASSIC).unwrap()
}

/// What the current superblock says; none where there is none.
pub(crate) fn current<R>(
    storage: &MemoryStorage,
    ask: impl FnOnce(&Superblock<'_>) -> R,
) -> Option<R> {
    let bytes = storage.to_vec();
    let [a, b] = [SuperblockCopy::A, SuperblockCopy::B].map(|copy| copy.offset().get() as usize);
    let choice = SuperblockChoice::new(&bytes[a..], &bytes[b..]).unwrap();
    choice.current().map(|(_, superblock)| ask(&superblock))
}

/// First bytes of what the tables name.
pub(crate) struct Uses {
    pub(crate) tables: Vec<u64>,
    pub(crate) data: BTreeSet<u64>,
    clusters: BTreeSet<u64>,
}

/// Reads the tables as the specification has them.
///
/// # Panics
/// If a cluster has two uses, or one that it must not have.
pub(crate) fn uses_of(storage: &MemoryStorage) -> Uses {
    let (bytes, header) = (storage.to_vec(), header(storage));
    let (cluster, table) =
        (header.geometry().cluster_size_bytes(), header.geometry().table_size_bytes());
    let mut uses = Uses { tables: Vec::new(), data: BTreeSet::new(), clusters: BTreeSet::new() };
    let mut claim = |start: u64, len: u64| {
        assert!(start.is_multiple_of(cluster) && start + len <= bytes.len() as u64, "{start:#x}");
        for number in start / cluster..(start + len) / cluster {
            assert!(uses.clusters.insert(number), "cluster {number} has two uses");
        }
    };
    let slots = |at: u64| {
        let slots = &bytes[at as usize..][..table as usize];
        slots.chunks(8).map(|slot| u64::from_le_bytes(slot.try_into().unwrap()))
    };
    claim(0, header.header_area_len_bytes());
    let l1: HostOffset = header.fields().l1_table_offset;
    claim(l1.get(), table);
    for at in slots(l1.get()).filter(|slot| *slot != 0) {
        claim(at, table);
        uses.tables.push(at);
        for data in slots(at).filter(|slot| *slot > 1) {
            claim(data, cluster);
            uses.data.insert(data);
        }
    }
    uses
}

/// Clusters of the file without a use.
pub(crate) fn leaks(storage: &MemoryStorage) -> u64 {
    let clusters = storage.to_vec().len() as u64 / header(storage).geometry().cluster_size_bytes();
    clusters - uses_of(storage).clusters.len() as u64
}
