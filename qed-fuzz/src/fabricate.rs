//! Images for measuring: all of the metadata, none of the data, made in the time it takes to write
//! the tables.
//!
//! Owns the layout of a made image. Uses no allocator, so that what is measured is not what made
//! the input.

use std::error::Error;
use std::io;

use qed_core::{CreateOptions, Layout, NewHeaderArea, header_area};
use qed_io::Storage;
use qed_spec::{Geometry, Header};

use crate::random::Random;

/// What image to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fabrication {
    /// Data clusters; the virtual disk is as large, apart from what `spare` adds.
    pub clusters: u64,
    /// What of the disk is not allocated.
    pub spare: Spare,
    /// What the header area holds.
    pub layout: Layout,
    /// Cluster and table size.
    pub geometry: Geometry,
    /// Which data cluster of the file each guest cluster lies in.
    pub order: Order,
}

/// Clusters of the disk that are not allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    /// None.
    None,
    /// As many L2 tables' worth at the end of the disk; the tables do not exist.
    Tables(u64),
    /// The last one of each table.
    OneInEach,
}

/// The order of the data clusters in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the guest sees them: the image of a copy.
    Sequential,
    /// A random permutation: the image of random writes.
    Scattered {
        /// The same seed makes the same image.
        seed: u64,
    },
}

/// Makes an image in `storage`, which must be empty: header, L1 table, and each L2 table before the
/// data that a sequential writer would have put after it. The data clusters are holes.
///
/// # Errors
/// When the clusters need more L2 tables than the L1 table has entries, and the storage's errors.
pub fn fabricate(storage: &dyn Storage, what: &Fabrication) -> Result<Header, Box<dyn Error>> {
    let area = header_area(&CreateOptions {
        geometry: what.geometry,
        image_size: disk_clusters(what) * what.geometry.cluster_size_bytes(),
        backing: None,
        layout: what.layout,
    })?;
    let place = Placement::new(what, &area);
    storage.set_len(place.file_len)?;
    if let Some((at, superblock)) = area.superblock(place.file_len) {
        storage.write_at(&superblock, at.get())?;
    }
    if let Some(ring) = area.ring() {
        // Not a hole: what is measured is the journal, not the file system finding space for it.
        let zeros = vec![0; usize::try_from(ring.len_bytes())?];
        storage.write_at(&zeros, ring.offset().get())?;
    }
    storage.write_at(&area.front, 0)?;
    let tables: Vec<u64> = (0..place.tables).map(|table| place.table_offset(table)).collect();
    write_entries(storage, &tables, place.l1_offset)?;
    let order = place.order(what);
    let mut entries = Vec::new();
    for (table, clusters) in (0..).zip(order.chunks(place.entries)) {
        entries.clear();
        entries.extend(clusters.iter().map(|cluster| place.data_offset(*cluster)));
        write_entries(storage, &entries, place.table_offset(table))?;
    }
    storage.flush()?;
    Ok(area.header)
}

/// Clusters of the virtual disk.
fn disk_clusters(what: &Fabrication) -> u64 {
    let entries = what.geometry.table_entries();
    match what.spare {
        Spare::None => what.clusters,
        Spare::Tables(tables) => (what.clusters.div_ceil(entries) + tables) * entries,
        Spare::OneInEach => what.clusters.div_ceil(entries - 1) * entries,
    }
}

/// Where tables and data lie.
struct Placement {
    cluster_size: u64,
    table_size: u64,
    l1_offset: u64,
    /// Entries of one table that name a cluster.
    entries: usize,
    tables: u64,
    file_len: u64,
}

impl Placement {
    fn new(what: &Fabrication, area: &NewHeaderArea) -> Self {
        let geometry = what.geometry;
        let entries = geometry.table_entries() - u64::from(what.spare == Spare::OneInEach);
        let tables = what.clusters.div_ceil(entries);
        let metadata = geometry.table_size_clusters() * tables;
        let clusters = (metadata + what.clusters) * geometry.cluster_size_bytes();
        Self {
            cluster_size: geometry.cluster_size_bytes(),
            table_size: geometry.table_size_bytes(),
            l1_offset: area.header.fields().l1_table_offset.get(),
            entries: usize::try_from(entries).expect("a table has at most 2^27 entries"),
            tables,
            file_len: area.empty_len() + clusters,
        }
    }

    fn table_offset(&self, table: u64) -> u64 {
        let group = self.table_size + self.entries as u64 * self.cluster_size;
        self.l1_offset + self.table_size + table * group
    }

    /// Where data cluster number `cluster` of the file lies.
    fn data_offset(&self, cluster: u64) -> u64 {
        let (table, within) = (cluster / self.entries as u64, cluster % self.entries as u64);
        self.table_offset(table) + self.table_size + within * self.cluster_size
    }

    /// For each guest cluster the number of its data cluster.
    fn order(&self, what: &Fabrication) -> Vec<u64> {
        let mut order: Vec<u64> = (0..what.clusters).collect();
        if let Order::Scattered { seed } = what.order {
            let mut random = Random::new(seed);
            for last in (1..order.len()).rev() {
                let other = random.below(last as u64 + 1);
                order.swap(last, usize::try_from(other).expect("an index below another"));
            }
        }
        order
    }
}

fn write_entries(storage: &dyn Storage, entries: &[u64], at: u64) -> io::Result<()> {
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    storage.write_at(&bytes, at)
}

#[cfg(test)]
mod tests {
    use qed_check::{CheckOptions, check};
    use qed_io::MemoryStorage;

    use super::*;

    fn plain(clusters: u64, geometry: Geometry, order: Order) -> Fabrication {
        Fabrication { clusters, geometry, order, spare: Spare::None, layout: Layout::Classic }
    }

    #[test]
    fn made_images_are_sound_and_as_full_as_asked() {
        let geometry = Geometry::new(4096, 2).unwrap();
        for clusters in [0, 1, 1023, 1024, 1025, 3000] {
            for order in [Order::Sequential, Order::Scattered { seed: 7 }] {
                let storage = MemoryStorage::default();
                fabricate(&storage, &plain(clusters, geometry, order)).unwrap();
                let report = check(&storage, &CheckOptions::default()).unwrap();
                assert!(report.is_clean(), "{clusters} {order:?}: {:?}", report.findings);
                assert_eq!(report.statistics.allocated_clusters, clusters);
                assert_eq!(report.statistics.total_clusters, clusters);
                let is_scattered = report.statistics.fragmented_clusters > clusters / 2;
                assert_eq!(is_scattered, clusters > 2 && order != Order::Sequential);
            }
        }
    }

    #[test]
    fn more_clusters_than_the_tables_can_map_are_refused() {
        let geometry = Geometry::new(4096, 1).unwrap();
        let clusters = 512 * 512 + 1;
        let what = plain(clusters, geometry, Order::Sequential);
        assert!(fabricate(&MemoryStorage::default(), &what).is_err());
    }
}
