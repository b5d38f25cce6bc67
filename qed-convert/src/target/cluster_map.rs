//! The two levels of tables of a new image while it is written: what is given out, and which tables
//! are complete.
//!
//! QED and QCOW2 differ in the bits of an entry and in byte order ([`EntryFormat`]), not in shape.
//! Does no I/O.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::convert::ConvertError;
use crate::target::{Chunk, Content};

/// How the format writes table entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryFormat {
    /// Set in every entry that names a cluster that nothing else names.
    pub(crate) owned: u64,
    /// The entry that reads as zeros over a backing file; none where the format has none.
    pub(crate) zero: Option<u64>,
    pub(crate) encode: fn(u64) -> [u8; 8],
    /// Most bytes of a file whose offsets fit the entries.
    pub(crate) limit: u64,
}

/// The shape of the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapShape {
    pub(crate) cluster_len: u64,
    /// Host clusters of one L2 table.
    pub(crate) table_clusters: u64,
    /// Bytes of the virtual disk.
    pub(crate) size: u64,
    /// Zeros from this guest offset on need no entry.
    pub(crate) zeros_below: u64,
}

/// An L2 table that gets no more entries, and where it belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) host: u64,
    pub(crate) entries: Vec<u64>,
}

/// Entries of the image so far; an entry is 0 until it is known.
#[derive(Debug)]
pub(crate) struct ClusterMap {
    shape: MapShape,
    format: EntryFormat,
    /// Host offset of each L2 table, 0 for none.
    l1: Vec<u64>,
    /// Tables that may get more entries, by L1 index.
    open: BTreeMap<u64, Table>,
    /// End of the file: the next free cluster.
    end: u64,
    /// Data clusters that were given out and not asked for by [`ClusterMap::take_new`].
    new: Vec<u64>,
}

impl MapShape {
    pub(crate) const fn entries_per_table(&self) -> u64 {
        self.table_clusters * self.cluster_len / 8
    }

    /// Guest bytes behind one L2 table; saturates.
    pub(crate) const fn table_reach(&self) -> u64 {
        self.entries_per_table().saturating_mul(self.cluster_len)
    }

    pub(crate) const fn l1_entries(&self) -> u64 {
        self.size.div_ceil(self.table_reach())
    }
}

impl ClusterMap {
    /// An empty map that gives out space from host offset `end` on, a whole cluster. The caller
    /// has limited the number of L1 entries.
    pub(crate) fn new(shape: MapShape, format: EntryFormat, end: u64) -> Self {
        let l1 = usize::try_from(shape.l1_entries()).expect("the caller limits the L1 table");
        Self { shape, format, l1: vec![0; l1], open: BTreeMap::new(), end, new: Vec::new() }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn l1(&self) -> &[u64] {
        &self.l1
    }

    /// Gives out `clusters` clusters at the end of the file; their first byte.
    pub(crate) fn allocate(&mut self, clusters: u64) -> Result<u64, ConvertError> {
        let limit = self.format.limit;
        let end = clusters.checked_mul(self.shape.cluster_len);
        let end = end.and_then(|len| self.end.checked_add(len)).filter(|end| *end <= limit);
        let end = end.ok_or(ConvertError::TooLarge { limit })?;
        Ok(std::mem::replace(&mut self.end, end))
    }

    /// The entry of a guest cluster; opens its table, and gives it space, if that is new.
    pub(crate) fn entry(&mut self, cluster: u64) -> Result<&mut u64, ConvertError> {
        let per_table = self.shape.entries_per_table();
        let (l1, l2) = (cluster / per_table, index(cluster % per_table));
        if !self.open.contains_key(&l1) {
            let host = self.allocate(self.shape.table_clusters)?;
            self.l1[index(l1)] = host;
            self.open.insert(l1, Table { host, entries: Vec::new() });
        }
        let entries = &mut self.open.get_mut(&l1).expect("opened above").entries;
        if entries.len() <= l2 {
            entries.resize(l2 + 1, 0);
        }
        Ok(&mut entries[l2])
    }

    /// Gives every cluster of `chunk` its entry; the host offset of each that holds data, 0 else.
    ///
    /// Data clusters that are new lie one after the other.
    pub(crate) fn place(&mut self, chunk: &Chunk<'_>) -> Result<Vec<u64>, ConvertError> {
        let contents = chunk.contents(self.shape.cluster_len);
        let mut hosts = Vec::with_capacity(contents.len());
        for (content, cluster) in contents.into_iter().zip(chunk.at / self.shape.cluster_len..) {
            hosts.push(match content {
                Content::Data => self.place_data(cluster)?,
                Content::Zero => {
                    self.place_zero(cluster)?;
                    0
                }
                Content::Kept => 0,
            });
        }
        Ok(hosts)
    }

    /// Gives a cluster a host cluster of its own unless it has one; the host offset.
    pub(crate) fn place_data(&mut self, cluster: u64) -> Result<u64, ConvertError> {
        let (owned, zero) = (self.format.owned, self.format.zero);
        let entry = *self.entry(cluster)?;
        if entry != 0 && Some(entry) != zero {
            return Ok(entry & !owned);
        }
        let host = self.allocate(1)?;
        *self.entry(cluster)? = host | owned;
        self.new.push(host);
        Ok(host)
    }

    /// The data clusters that were given out since the last call.
    pub(crate) fn take_new(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.new)
    }

    /// As [`ClusterMap::place_data`] for clusters of one table; the first host offset if they lie
    /// together, as they do unless some had one before.
    pub(crate) fn place_run(&mut self, clusters: Range<u64>) -> Result<Option<u64>, ConvertError> {
        let (mut first, mut together) = (None, true);
        for (cluster, number) in clusters.zip(0..) {
            let host = self.place_data(cluster)?;
            let first = *first.get_or_insert(host);
            together &= host.checked_sub(first) == Some(number * self.shape.cluster_len);
        }
        Ok(first.filter(|_| together))
    }

    /// Makes a cluster read as zeros unless it has data or reads so anyway.
    pub(crate) fn place_zero(&mut self, cluster: u64) -> Result<(), ConvertError> {
        if cluster * self.shape.cluster_len >= self.shape.zeros_below {
            return Ok(());
        }
        match self.format.zero {
            Some(zero) => {
                let entry = self.entry(cluster)?;
                if *entry == 0 {
                    *entry = zero;
                }
            }
            // A data cluster that is never written reads as zeros.
            None => drop(self.place_data(cluster)?),
        }
        Ok(())
    }

    /// Takes out the tables that map only guest bytes below `guest_offset`.
    pub(crate) fn take_settled(&mut self, guest_offset: u64) -> Vec<Table> {
        let first_open = guest_offset / self.shape.table_reach();
        let later = self.open.split_off(&first_open);
        std::mem::replace(&mut self.open, later).into_values().collect()
    }

    /// Takes out all tables that are left.
    pub(crate) fn take_all(&mut self) -> Vec<Table> {
        std::mem::take(&mut self.open).into_values().collect()
    }

    /// The bytes of table entries as they belong on disk.
    pub(crate) fn encode(&self, entries: &[u64]) -> Vec<u8> {
        entries.iter().flat_map(|entry| (self.format.encode)(*entry)).collect()
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("table indices are below the number of entries in memory")
}
