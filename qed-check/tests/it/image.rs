//! Small images built byte by byte, damaged at will, and read without any code of the library.

use std::sync::Arc;

use qed_check::{CheckOptions, CrashLeft, RecoverError, Recovered, Report, check};
use qed_io::{MemoryStorage, Storage};
use qed_layout::{FirstSector, SUPPORTED_WITHOUT_LOG};

pub(crate) const CLUSTER: u64 = 4096;
/// Byte of the header where the incompatible feature bits lie.
pub(crate) const FEATURES_AT: usize = 16;
/// Byte of the header where the autoclear feature bits lie.
pub(crate) const AUTOCLEAR_AT: usize = 32;
pub(crate) const NEED_CHECK: u64 = 2;

/// An image of 4 KiB clusters: the header area, then the L1 table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestImage {
    pub(crate) bytes: Vec<u8>,
    pub(crate) header_clusters: u64,
    pub(crate) table_clusters: u64,
    pub(crate) image_size: u64,
}

/// What the guest sees of one cluster of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuestCluster {
    Unallocated,
    Zero,
    Data(Vec<u8>),
    /// The entry, or that of the table, names nothing that can be read.
    Wrong,
}

impl TestImage {
    /// An image whose disk has `image_clusters`, in a file of `file_clusters`, nothing allocated.
    /// Every cluster behind the L1 table holds bytes of its own.
    pub(crate) fn new(table_clusters: u64, image_clusters: u64, file_clusters: u64) -> Self {
        Self::with_header(1, table_clusters, image_clusters, file_clusters)
    }

    /// As [`TestImage::new`], with a header area of several clusters.
    pub(crate) fn with_header(
        header_clusters: u64,
        table_clusters: u64,
        image_clusters: u64,
        file_clusters: u64,
    ) -> Self {
        let image_size = image_clusters * CLUSTER;
        let bytes = vec![0; usize::try_from(file_clusters * CLUSTER).unwrap()];
        let mut image = Self { bytes, header_clusters, table_clusters, image_size };
        image.bytes[..4].copy_from_slice(b"QED\0");
        for (at, value) in [(4, CLUSTER), (8, table_clusters), (12, header_clusters)] {
            let value = u32::try_from(value).unwrap();
            image.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        image.set(40, header_clusters * CLUSTER);
        image.set(48, image_size);
        for cluster in image.metadata_end()..file_clusters {
            image.fill(cluster);
        }
        image
    }

    /// The first cluster after the header area and the L1 table.
    pub(crate) fn metadata_end(&self) -> u64 {
        self.header_clusters + self.table_clusters
    }

    /// Where a slot of the L1 table lies.
    pub(crate) fn l1_slot(&self, l1: u64) -> u64 {
        self.header_clusters * CLUSTER + l1 * 8
    }

    /// The usual victim: tables of one cluster, at cluster 2 for the first 2 MiB of the disk with
    /// data in clusters 4, 5, 6 at guest clusters 0, 1 and 5, a zero cluster at 2, and at cluster 3
    /// for the next 2 MiB with data in cluster 7 at guest cluster 512.
    pub(crate) fn sample() -> Self {
        let mut image = Self::new(1, 600, 8);
        image.table(0, 2);
        image.table(1, 3);
        for (l2, value) in [(0, 4 * CLUSTER), (1, 5 * CLUSTER), (2, 1), (5, 6 * CLUSTER)] {
            image.set_l2(2, l2, value);
        }
        image.set_l2(3, 0, 7 * CLUSTER);
        image
    }

    pub(crate) fn entries(&self) -> u64 {
        self.table_clusters * CLUSTER / 8
    }

    pub(crate) fn image_clusters(&self) -> u64 {
        self.image_size.div_ceil(CLUSTER)
    }

    pub(crate) fn get(&self, at: u64) -> u64 {
        let at = usize::try_from(at).unwrap();
        let mut word = [0; 8];
        let bytes = self.bytes.get(at..).unwrap_or_default();
        let there = bytes.len().min(8);
        word[..there].copy_from_slice(&bytes[..there]);
        u64::from_le_bytes(word)
    }

    pub(crate) fn set(&mut self, at: u64, value: u64) {
        let at = usize::try_from(at).unwrap();
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn set_l1(&mut self, l1: u64, value: u64) {
        self.set(self.l1_slot(l1), value);
    }

    /// Sets a slot of the table that starts at `cluster`.
    pub(crate) fn set_l2(&mut self, cluster: u64, l2: u64, value: u64) {
        self.set(cluster * CLUSTER + l2 * 8, value);
    }

    /// Puts an empty table at `cluster` and links it.
    pub(crate) fn table(&mut self, l1: u64, cluster: u64) {
        self.clear(cluster, self.table_clusters);
        self.set_l1(l1, cluster * CLUSTER);
    }

    /// Fills clusters with zeros, as far as the file reaches.
    pub(crate) fn clear(&mut self, cluster: u64, count: u64) {
        let start = usize::try_from(cluster * CLUSTER).unwrap().min(self.bytes.len());
        let end = usize::try_from((cluster + count) * CLUSTER).unwrap().min(self.bytes.len());
        self.bytes[start..end].fill(0);
    }

    fn fill(&mut self, cluster: u64) {
        let at = usize::try_from(cluster * CLUSTER).unwrap();
        let word = (cluster << 32 | 0xda7a).to_le_bytes();
        self.bytes[at..at + 4096].chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&word));
    }

    pub(crate) fn set_features(&mut self, at: usize, bits: u64) {
        self.set(at as u64, bits);
    }

    pub(crate) fn features(&self, at: usize) -> u64 {
        self.get(at as u64)
    }

    pub(crate) fn storage(&self) -> Arc<MemoryStorage> {
        Arc::new(MemoryStorage::new(self.bytes.clone()))
    }

    pub(crate) fn with_bytes(&self, bytes: Vec<u8>) -> Self {
        Self { bytes, ..self.clone() }
    }

    pub(crate) fn check(&self) -> Report {
        let mut options = CheckOptions::default();
        options.findings_limit = usize::MAX;
        check(&*self.storage(), &options).unwrap()
    }

    /// What lies at every guest cluster that the tables can reach up to `clusters`.
    pub(crate) fn guest(&self, clusters: u64) -> Vec<GuestCluster> {
        (0..clusters).map(|cluster| self.guest_cluster(cluster)).collect()
    }

    fn guest_cluster(&self, cluster: u64) -> GuestCluster {
        let (l1, l2) = (cluster / self.entries(), cluster % self.entries());
        let Some(table) = self.table_of(l1) else {
            let is_empty = self.get(self.l1_slot(l1)) == 0;
            return if is_empty { GuestCluster::Unallocated } else { GuestCluster::Wrong };
        };
        match self.get((table * CLUSTER) + l2 * 8) {
            0 => GuestCluster::Unallocated,
            1 => GuestCluster::Zero,
            value => {
                let host = value / CLUSTER;
                let is_there = value.is_multiple_of(CLUSTER) && value < self.bytes.len() as u64;
                if !is_there || host < self.metadata_end() {
                    return GuestCluster::Wrong;
                }
                let at = usize::try_from(value).unwrap();
                let mut data = self.bytes[at..self.bytes.len().min(at + 4096)].to_vec();
                data.resize(4096, 0);
                GuestCluster::Data(data)
            }
        }
    }

    /// The first cluster of the table that an L1 slot names, if there can be a table.
    pub(crate) fn table_of(&self, l1: u64) -> Option<u64> {
        let value = self.get(self.l1_slot(l1));
        let first = value / CLUSTER;
        let end = first.saturating_add(self.table_clusters);
        let fits = end <= (self.bytes.len() as u64).div_ceil(CLUSTER);
        (value.is_multiple_of(CLUSTER) && fits && first >= self.metadata_end()).then_some(first)
    }
}

/// The SplitMix64 sequence.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % end
    }
}

/// An image with a few tables and entries, most of them right, the rest wrong in every way.
pub(crate) fn damaged(seed: u64) -> TestImage {
    let mut random = Random(seed);
    let table_clusters = 1 << random.below(2);
    let entries = table_clusters * CLUSTER / 8;
    // Mostly sound, or hardly anything would get past the first rule that is broken.
    let damage = [0, 2, 10, 40][usize::try_from(random.below(4)).unwrap()];
    let image_clusters = if damage == 0 { 5 * entries } else { 1 + random.below(3 * entries) };
    let header_clusters = 1 + random.below(3) / 2;
    let file_clusters = header_clusters + 3 * table_clusters + random.below(30);
    let mut image =
        TestImage::with_header(header_clusters, table_clusters, image_clusters, file_clusters);
    let mut next = image.metadata_end();
    let mut tables = Vec::new();
    for l1 in 0..1 + random.below(5) {
        let value = if random.below(100) < damage {
            wrong_value(&mut random, file_clusters)
        } else {
            next += table_clusters;
            (next - table_clusters) * CLUSTER
        };
        image.set_l1(l1, value);
        tables.extend(image.table_of(l1));
    }
    for table in &tables {
        image.clear(*table, table_clusters);
    }
    for table in tables {
        for _ in 0..random.below(12) {
            let value = if random.below(100) < damage {
                wrong_value(&mut random, file_clusters)
            } else if random.below(4) == 0 || damage == 0 && next == file_clusters {
                1
            } else {
                next += 1;
                (next - 1).min(file_clusters) * CLUSTER
            };
            let near_the_end = image_clusters.saturating_sub(6) + random.below(12);
            let slot = [random.below(16), near_the_end, random.below(entries)]
                [usize::try_from(random.below(3)).unwrap()];
            let at = table * CLUSTER + slot % entries * 8;
            if at + 8 <= image.bytes.len() as u64 {
                image.set(at, value);
            }
        }
    }
    if damage == 0 && random.below(2) == 0 {
        image.bytes.truncate(usize::try_from(next.max(1 + table_clusters) * CLUSTER).unwrap());
    } else if random.below(3) == 0 {
        let cut = usize::try_from(random.below(CLUSTER)).unwrap();
        let keep = usize::try_from(image.metadata_end() * CLUSTER).unwrap();
        image.bytes.truncate((image.bytes.len() - cut).max(keep));
    }
    image
}

fn wrong_value(random: &mut Random, file_clusters: u64) -> u64 {
    let cluster = random.below(file_clusters + 2);
    match random.below(8) {
        0 => cluster * CLUSTER + 8,
        1 => u64::MAX - random.below(2 * CLUSTER),
        2 => 1 + random.below(4),
        3 => 1 << (12 + random.below(52)),
        _ => cluster * CLUSTER,
    }
}

/// Recovers as an open image asks for it, which finds out what the crash left.
pub(crate) fn recover(storage: &dyn Storage) -> Result<Recovered, RecoverError> {
    let sector = FirstSector::read(storage, storage.len().unwrap()).unwrap();
    let header = sector.header(SUPPORTED_WITHOUT_LOG);
    let left = header.map(|header| CrashLeft::read(storage, &header).unwrap());
    qed_check::recover(storage, &left.unwrap_or(CrashLeft::AllTables))
}
