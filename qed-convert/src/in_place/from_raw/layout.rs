//! Where things go behind the end of a raw file that becomes a QED image, and every byte of them.
//!
//! Knows bytes and offsets; the order of the steps is the caller's.

use std::convert::Infallible;

use qed_io::Storage;
use qed_spec::{
    AutoclearFeatures, CompatFeatures, Features, Geometry, Header, HeaderError, HeaderFields,
    HostOffset,
};

use crate::in_place::error::{InPlaceError, Refusal, Step, failed};
use crate::in_place::from_raw::{FromRawOptions, FromRawPlan};
use crate::in_place::kept_plan::{Plan, Tail};
use crate::in_place::plan::geometry_for;
use crate::in_place::step::{self, SECTOR, Sector};
use crate::zero::is_zero;

/// Bytes that are written at a time.
const PIECE: u64 = 256 << 10;
/// What file systems give space in.
const BLOCK: usize = 4096;
/// Offsets in a disk stay below 2^63.
const MAX_DISK_LEN: u64 = (1 << 63) - 512;
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
const QED_MAGIC: [u8; 4] = *b"QED\0";

/// The tail: a copy of the first cluster, the L2 tables, the L1 table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) geometry: Geometry,
    /// Bytes of the raw file.
    pub(super) len: u64,
}

impl Layout {
    pub(super) fn plan(
        storage: &dyn Storage,
        options: &FromRawOptions,
        len: u64,
    ) -> Result<Self, InPlaceError> {
        if !step::is_regular(storage) {
            return Err(Refusal::BlockDevice.into());
        }
        if len == 0 {
            return Err(Refusal::EmptyFile.into());
        }
        if !len.is_multiple_of(SECTOR as u64) {
            return Err(Refusal::Unaligned { len }.into());
        }
        let sector: Sector = step::read(storage, 0)?;
        for (magic, format) in [(QED_MAGIC, "QED"), (QCOW2_MAGIC, "QCOW2")] {
            if sector.starts_with(&magic) {
                return Err(Refusal::NotRaw { format }.into());
            }
        }
        let cluster_len = options.cluster_len;
        let shape = geometry_for(len, cluster_len.into()).filter(|_| len <= MAX_DISK_LEN);
        let geometry = shape.ok_or(Refusal::Geometry { cluster_len, len })?;
        Ok(Self { geometry, len })
    }

    /// The layout that a plan was made with; none if the plan has a header that no conversion makes.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        let header = Header::parse(&plan.new, i64::MAX.unsigned_abs(), Features::CLASSIC).ok()?;
        if header.image_size() != plan.raw_len {
            return None;
        }
        let layout = Self { geometry: header.geometry(), len: plan.raw_len };
        let made = layout.header_sector().ok()?;
        (made == plan.new).then_some(layout)
    }

    pub(super) fn summary(&self) -> FromRawPlan {
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

    pub(super) fn end(&self) -> u64 {
        self.table(self.tables() + 1)
    }

    pub(super) fn header_sector(&self) -> Result<Sector, HeaderError> {
        let fields = HeaderFields {
            geometry: self.geometry,
            header_size_clusters: 1,
            features: Features::empty(),
            compat_features: CompatFeatures::empty(),
            autoclear_features: AutoclearFeatures::empty(),
            l1_table_offset: HostOffset::new(self.table(self.tables())),
            image_size: self.len,
        };
        Ok(Header::new(fields, self.end())?.encode_sector(&[0; SECTOR]))
    }

    /// The guest's first cluster, as far as the file has it.
    pub(super) fn read_first(&self, storage: &dyn Storage) -> Result<Vec<u8>, InPlaceError> {
        let len = self.geometry.cluster_size_bytes().min(self.len);
        let mut first = vec![0; usize::try_from(len).expect("at most 64 MiB")];
        storage.read_at(&mut first, 0).map_err(failed(Step::Read))?;
        Ok(first)
    }

    /// Step "append": the first cluster, the tables.
    pub(super) fn append(&self, storage: &dyn Storage, first: &[u8]) -> Result<(), InPlaceError> {
        step::set_len(storage, Step::Append, self.end())?;
        self.for_each_piece(first, |at, piece| {
            // New space reads as zeros: blocks of zeros stay holes.
            let blocks: Vec<&[u8]> = piece.chunks(BLOCK).collect();
            let mut from = 0;
            for run in blocks.chunk_by(|one, next| is_zero(one) == is_zero(next)) {
                let end = from + run.iter().map(|block| block.len()).sum::<usize>();
                if !is_zero(run[0]) {
                    let written = storage.write_at(&piece[from..end], at + from as u64);
                    written.map_err(failed(Step::Append))?;
                }
                from = end;
            }
            Ok(())
        })
    }

    /// What *append* makes of the file behind the disk.
    pub(super) fn tail(&self, first: &[u8]) -> Tail {
        let mut tail = Tail::default();
        let Ok(()) = self.for_each_piece(first, |_, piece| {
            tail.add(piece);
            Ok::<(), Infallible>(())
        });
        tail
    }

    /// Calls `look` with all that lies behind the disk, piece by piece, and where it lies.
    fn for_each_piece<E>(
        &self,
        first: &[u8],
        mut look: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut piece = Vec::new();
        let mut at = self.len;
        while at < self.end() {
            // The first ends with the last cluster of the disk, so that blocks of others are whole.
            let end = if at < self.first_cluster() { self.first_cluster() } else { self.end() };
            let len = PIECE.min(end - at);
            piece.resize(usize::try_from(len).expect("a small piece"), 0);
            self.fill(first, at, &mut piece);
            look(at, &piece)?;
            at += len;
        }
        Ok(())
    }

    /// The bytes of the tail from `at` on, both whole words.
    fn fill(&self, first: &[u8], at: u64, bytes: &mut [u8]) {
        for (word, at) in bytes.chunks_exact_mut(8).zip((at..).step_by(8)) {
            word.copy_from_slice(&self.word(first, at));
        }
    }

    fn word(&self, first: &[u8], at: u64) -> [u8; 8] {
        let Some(in_tables) = at.checked_sub(self.table(0)) else {
            let within = at.checked_sub(self.first_cluster());
            let within = within.and_then(|within| usize::try_from(within).ok());
            let copied = within.and_then(|within| first.get(within..)?.first_chunk().copied());
            return copied.unwrap_or_default();
        };
        let table_len = self.geometry.table_size_bytes();
        let (table, slot) = (in_tables / table_len, in_tables % table_len / 8);
        if table == self.tables() {
            return if slot < self.tables() { self.table(slot).to_le_bytes() } else { [0; 8] };
        }
        match table * self.geometry.table_entries() + slot {
            0 => self.first_cluster().to_le_bytes(),
            cluster if cluster < self.clusters() => {
                (cluster << self.geometry.cluster_bits()).to_le_bytes()
            }
            _ => [0; 8],
        }
    }
}
