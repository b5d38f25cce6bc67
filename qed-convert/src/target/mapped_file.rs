//! The file of a new image with tables: clusters and tables at their final place, in any order.
//!
//! Nothing written here means anything before the header is, which is the owner's last write.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qed_io::Storage;

use crate::convert::{ConvertError, Turn, WriteAction};
use crate::target::cluster_map::{ClusterMap, EntryFormat, MapShape, Table};
use crate::target::file::TargetFile;
use crate::target::{Chunk, Shape, SharedRun};

pub(crate) struct MappedFile {
    file: TargetFile,
    shape: MapShape,
    map: Mutex<ClusterMap>,
    /// Space that was never written reads as zeros.
    blank: bool,
}

impl MappedFile {
    /// Empties `file`, or on a block device voids its first cluster, so that what it held is no
    /// image any more; gives out space from host offset `first_free` on.
    pub(crate) fn create(
        file: TargetFile,
        shape: MapShape,
        format: EntryFormat,
        first_free: u64,
    ) -> Result<Self, ConvertError> {
        let blank = file.grows_with_zeros();
        if blank {
            file.set_len(0)?;
        } else {
            file.write_zeroes(0..shape.cluster_len)?;
        }
        file.flush()?;
        let map = Mutex::new(ClusterMap::new(shape, format, first_free));
        Ok(Self { file, shape, map, blank })
    }

    pub(crate) fn shape(&self, keep_from_depth: Option<u32>) -> Shape {
        Shape {
            cluster_len: self.shape.cluster_len,
            table_reach: self.shape.table_reach(),
            zeros_below: self.shape.zeros_below,
            keep_from_depth,
            // Stale space under a hole would show through.
            least_hole_len: if self.blank { 0 } else { self.shape.cluster_len },
        }
    }

    pub(crate) fn map(&self) -> MutexGuard<'_, ClusterMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `plan` on the map when it is this job's turn, and writes the tables that are complete. Where
    /// space is stale, new data clusters that the plan has not taken note of become zeros.
    pub(crate) fn in_turn<R>(
        &self,
        turn: Turn<'_>,
        plan: impl FnOnce(&mut ClusterMap) -> Result<R, ConvertError>,
    ) -> Result<R, ConvertError> {
        turn.wait()?;
        let mut map = self.map();
        let planned = plan(&mut map)?;
        self.clear(map.take_new(), |_| false)?;
        let settled = map.take_settled(turn.settled());
        drop(map);
        drop(turn);
        self.write_tables(settled)?;
        Ok(planned)
    }

    pub(crate) fn write(&self, chunk: &Chunk<'_>, turn: Turn<'_>) -> Result<(), ConvertError> {
        let hosts = self.in_turn(turn, |map| {
            let hosts = map.place(chunk)?;
            self.clear(map.take_new(), |host| {
                hosts.iter().position(|it| *it == host).is_some_and(|slot| self.fills(chunk, slot))
            })?;
            Ok(hosts)
        })?;
        let cluster_len = self.shape.cluster_len;
        let first = chunk.at / cluster_len;
        for run in chunk.data {
            // The clusters of a run are neighbours in the file, so the first one tells.
            let at = chunk.at + run.start as u64;
            let slot = usize::try_from(at / cluster_len - first).expect("clusters in a buffer");
            self.write_data(&chunk.bytes[run.clone()], hosts[slot] + at % cluster_len)?;
        }
        Ok(())
    }

    /// Writes zeros to new data clusters but those that are going to be written as a whole. Before others
    /// have their turn: they may write other parts of them.
    fn clear(&self, new: Vec<u64>, is_filled: impl Fn(u64) -> bool) -> Result<(), ConvertError> {
        if self.blank {
            return Ok(());
        }
        let len = self.shape.cluster_len;
        let mut stale = new.into_iter().filter(|host| !is_filled(*host));
        stale.try_for_each(|host| self.file.write_zeroes(host..host + len))
    }

    /// Whether the data of a chunk fills its cluster number `slot`.
    fn fills(&self, chunk: &Chunk<'_>, slot: usize) -> bool {
        let len = self.shape.cluster_len;
        let start = (chunk.at / len + slot as u64) * len;
        let inside = |run: &Range<usize>| {
            let (from, to) = (chunk.at + run.start as u64, chunk.at + run.end as u64);
            from <= start && start + len <= to
        };
        chunk.data.iter().any(inside)
    }

    /// As [`Sink::sharing_unit`](crate::target::Sink::sharing_unit): clusters lie at multiples of their
    /// length.
    pub(crate) fn sharing_unit(&self, source: &dyn Storage) -> Option<u64> {
        let unit = self.file.sharing_unit(source)?;
        self.shape.cluster_len.is_multiple_of(unit).then_some(unit)
    }

    /// As [`Sink::share`](crate::target::Sink::share).
    pub(crate) fn share<'t>(
        &self,
        run: &SharedRun<'_>,
        turn: Turn<'t>,
    ) -> Result<Option<Turn<'t>>, ConvertError> {
        let cluster_len = self.shape.cluster_len;
        turn.wait()?;
        let clusters = run.guest.start / cluster_len..run.guest.end / cluster_len;
        let host = self.map().place_run(clusters)?;
        // The turn is kept meanwhile: what is written instead needs the tables as they are.
        if !host.is_some_and(|host| self.file.share(run, host)) {
            return Ok(Some(turn));
        }
        self.in_turn(turn, |_| Ok(()))?;
        Ok(None)
    }

    pub(crate) fn write_data(&self, bytes: &[u8], host: u64) -> Result<(), ConvertError> {
        self.file.write(WriteAction::Data, bytes, host)
    }

    pub(crate) fn zero(&self, range: Range<u64>, turn: Turn<'_>) -> Result<(), ConvertError> {
        let cluster_len = self.shape.cluster_len;
        self.in_turn(turn, |map| {
            let mut clusters = range.start / cluster_len..range.end.div_ceil(cluster_len);
            clusters.try_for_each(|cluster| map.place_zero(cluster))
        })
    }

    /// Writes the tables that are left; none is open afterwards.
    pub(crate) fn finish_tables(&self) -> Result<(), ConvertError> {
        let tables = self.map().take_all();
        self.write_tables(tables)
    }

    /// Writes the L1 table with `owned` set in its entries, makes the file as long as what was
    /// given out, and flushes; then writes `front`, which holds the header, and flushes again.
    pub(crate) fn publish(&self, l1_at: u64, owned: u64, front: &[u8]) -> Result<(), ConvertError> {
        let (l1, end) = {
            let map = self.map();
            let own = |host: &u64| if *host == 0 { 0 } else { host | owned };
            (map.encode(&map.l1().iter().map(own).collect::<Vec<_>>()), map.end())
        };
        if self.blank {
            self.file.set_len(end)?;
        }
        self.write_table(&l1, l1_at)?;
        self.file.flush()?;
        self.file.write(WriteAction::Header, front, 0)?;
        self.file.flush()
    }

    /// Bytes up to the end of the last cluster that was given out.
    pub(crate) fn end(&self) -> u64 {
        self.map().end()
    }

    pub(crate) fn write_table(&self, bytes: &[u8], host: u64) -> Result<(), ConvertError> {
        self.file.write(WriteAction::Table, bytes, host)
    }

    fn write_tables(&self, tables: Vec<Table>) -> Result<(), ConvertError> {
        for mut table in tables {
            if !self.blank {
                let entries = usize::try_from(self.shape.entries_per_table());
                table.entries.resize(entries.expect("tables of QCOW2 are one cluster"), 0);
            }
            let bytes = self.map().encode(&table.entries);
            self.write_table(&bytes, table.host)?;
        }
        Ok(())
    }
}
