//! From the entries of a QCOW2 image to those of the QED image that it becomes.

use qed_io::Storage;
use qed_spec::{Geometry, GuestOffset, L2Entry};

use super::plan::Places;
use crate::in_place::error::{InPlaceError, Step};
use crate::in_place::step::write;
use crate::qcow2::{ClusterKind, Qcow2Header, Qcow2Image, References};

/// An entry of the QED image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Cluster of the virtual disk.
    pub(super) guest: u64,
    /// As the table has it.
    pub(super) value: u64,
    /// Its cluster is one that is appended.
    pub(super) is_copied: bool,
}

/// Calls `look` for each entry that is not unallocated, in the order of the guest.
pub(super) fn for_each_entry(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
    places: &Places,
    mut look: impl FnMut(Entry) -> Result<(), InPlaceError>,
) -> Result<(), InPlaceError> {
    let clusters = header.image_size().div_ceil(header.cluster_size());
    let zero = L2Entry::Zero.encode(places.geometry);
    let mut next_copy = places.copies;
    References::new(storage, header, file_len).for_each_table(|table| {
        for cluster in table.clusters() {
            let (guest, cluster) = cluster?;
            if guest >= clusters {
                break;
            }
            let (value, is_copied) = match (cluster.kind, cluster.host) {
                (ClusterKind::Unallocated, _) => continue,
                (ClusterKind::Data, Some(host)) => (host.get(), false),
                (ClusterKind::Zero | ClusterKind::Data, _) => (zero, false),
                (ClusterKind::Compressed(_) | ClusterKind::Mixed, _) => {
                    let at = next_copy;
                    next_copy += header.cluster_size();
                    (at, true)
                }
            };
            look(Entry { guest, value, is_copied })?;
        }
        Ok(())
    })
}

/// Appends what QED cannot name where it is, then the tables.
pub(super) fn append(
    storage: &dyn Storage,
    image: &Qcow2Image,
    file_len: u64,
    places: &Places,
) -> Result<(), InPlaceError> {
    let header = image.header();
    let mut tables = Tables::new(storage, places);
    let mut cluster = vec![0; usize::try_from(header.cluster_size()).expect("at most 2 MiB")];
    for_each_entry(storage, header, file_len, places, |entry| {
        if entry.is_copied {
            let start = entry.guest * header.cluster_size();
            let len = (header.image_size() - start).min(header.cluster_size());
            let (there, past_end) = cluster.split_at_mut(usize::try_from(len).expect("a cluster"));
            image.read_at(there, GuestOffset::new(start))?;
            past_end.fill(0);
            write(storage, Step::Append, &cluster, entry.value)?;
        }
        tables.set(entry)
    })?;
    tables.finish()
}

/// The tables that are appended, one L2 table in memory.
struct Tables<'a> {
    storage: &'a dyn Storage,
    geometry: Geometry,
    l1: Vec<u8>,
    l1_at: u64,
    l2: Vec<u8>,
    /// The L1 slot of the table in memory.
    current: Option<u64>,
    next_at: u64,
}

impl<'a> Tables<'a> {
    fn new(storage: &'a dyn Storage, places: &Places) -> Self {
        let geometry = places.geometry;
        let len = usize::try_from(geometry.table_size_bytes()).expect("at most 32 MiB");
        let (l1, l2) = (vec![0; len], vec![0; len]);
        let (l1_at, next_at) = (places.l1, places.tables);
        Self { storage, geometry, l1, l1_at, l2, current: None, next_at }
    }

    fn set(&mut self, entry: Entry) -> Result<(), InPlaceError> {
        let per_table = self.geometry.table_entries();
        let (slot, index) = (entry.guest / per_table, entry.guest % per_table);
        if self.current != Some(slot) {
            self.write_table()?;
            self.current = Some(slot);
        }
        put(&mut self.l2, index, entry.value);
        Ok(())
    }

    /// Writes the table in memory, and begins an empty one.
    fn write_table(&mut self) -> Result<(), InPlaceError> {
        let Some(slot) = self.current.take() else { return Ok(()) };
        put(&mut self.l1, slot, self.next_at);
        write(self.storage, Step::Append, &self.l2, self.next_at)?;
        self.next_at += self.l2.len() as u64;
        self.l2.fill(0);
        Ok(())
    }

    fn finish(mut self) -> Result<(), InPlaceError> {
        self.write_table()?;
        write(self.storage, Step::Append, &self.l1, self.l1_at)
    }
}

fn put(table: &mut [u8], index: u64, value: u64) {
    let at = usize::try_from(index * 8).expect("inside the table");
    table[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
