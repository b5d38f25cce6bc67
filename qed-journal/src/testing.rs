//! The smallest image that a journal can belong to, for tests: sector 0, two superblocks, a ring,
//! and clusters of tables.
//!
//! Keeps the contract of [`Owner`] and nothing else; no disk is mapped by the tables.

use std::io;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qed_io::Storage;
use qed_spec::{
    AutoclearFeatures, ClusterCount, CompatFeatures, Epoch, Features, Geometry, Header,
    HeaderFields, HostCluster, HostOffset, ImageUuid, JournalRecord, JournalRing, JournalSequence,
    SUPERBLOCK_LEN_BYTES, SectionType, SuperblockBuilder, SuperblockChoice, SuperblockCopy,
};

use crate::format::format;
use crate::journal::Journal;
use crate::owner::{Owner, TailMove, TailMoved};
use crate::recovery::Recovery;
use crate::setup::{Claim, JournalSetup};

/// An image of 4 KiB clusters that is nothing but header area and tables.
#[derive(Debug)]
pub struct TestImage {
    storage: Arc<dyn Storage>,
    header: Mutex<Header>,
    /// Bytes of the header area.
    header_area: u64,
}

/// What an image is found to be.
#[derive(Debug)]
pub enum Opened {
    /// JOURNAL_ACTIVE is clear.
    Clean(Journal),
    /// JOURNAL_ACTIVE is set, and this is what the journal holds.
    Dirty(Recovery),
}

/// First byte of the ring.
const RING_OFFSET: u64 = 16384;
const CLUSTER_LEN: u64 = 4096;
const SECTOR_LEN: u64 = 512;

impl TestImage {
    /// Clusters of tables of a small test image; the first one is the L1 table.
    pub const TABLES: u64 = 4;

    /// Writes a new small image with a ring of as many blocks, durably.
    ///
    /// # Errors
    /// As [`TestImage::create_with_tables`].
    pub fn create(storage: Arc<dyn Storage>, ring_blocks: u64) -> io::Result<Self> {
        Self::create_with_tables(storage, ring_blocks, Self::TABLES)
    }

    /// Writes a new image with as many clusters of tables, durably. A storage that grows gets the
    /// length it needs, any other must have it.
    ///
    /// # Errors
    /// The error of the storage.
    pub fn create_with_tables(
        storage: Arc<dyn Storage>,
        ring_blocks: u64,
        tables: u64,
    ) -> io::Result<Self> {
        let ring_len = ring_blocks * CLUSTER_LEN;
        let header_area = RING_OFFSET + ring_len;
        let end = header_area + tables * CLUSTER_LEN;
        if storage.len()? < end {
            storage.set_len(end)?;
        }
        let ring = JournalRing::new(HostOffset::new(RING_OFFSET), ring_len, JournalSequence::FIRST);
        let ring = ring.map_err(io::Error::other)?;
        format(&*storage, &ring)?;
        storage.write_zeroes(header_area..end)?;
        storage.write_zeroes(0..RING_OFFSET)?;
        let fields = HeaderFields {
            geometry: Geometry::new(4096, 1).expect("a legal shape"),
            header_size_clusters: u32::try_from(header_area / CLUSTER_LEN)
                .expect("at most a ring of 1 GiB"),
            features: Features::empty(),
            compat_features: CompatFeatures::empty(),
            autoclear_features: AutoclearFeatures::JOURNAL,
            l1_table_offset: HostOffset::new(header_area),
            // Nothing is mapped, so this is free to say how many tables there are.
            image_size: tables * SECTOR_LEN,
        };
        let header = Header::new(fields, end).map_err(io::Error::other)?;
        let image = Self { storage, header: Mutex::new(header), header_area };
        let uuid = ImageUuid::new(*b"a journal's test");
        image.write_superblock(SuperblockBuilder::new(uuid, Epoch::new(1)), &ring)?;
        image.write_header(header)?;
        image.storage.flush()?;
        Ok(image)
    }

    /// The image that `storage` holds.
    ///
    /// # Errors
    /// The error of the storage, or a header that is none.
    pub fn open(storage: Arc<dyn Storage>) -> io::Result<Self> {
        let mut bytes = [0; 512];
        storage.read_at(&mut bytes, 0)?;
        let supported = Features::CLASSIC | Features::JOURNAL_ACTIVE;
        let header = Header::parse(&bytes, storage.len()?, supported).map_err(io::Error::other)?;
        let header_area = header.header_area_len_bytes();
        Ok(Self { storage, header: Mutex::new(header), header_area })
    }

    /// Opens the journal, or reads it where it must be recovered.
    ///
    /// # Errors
    /// That of opening or reading it, as a source.
    pub fn journal(&self) -> io::Result<Opened> {
        let setup = self.setup()?;
        let storage = self.storage.clone();
        if !self.locked().features().contains(Features::JOURNAL_ACTIVE) {
            return Journal::open_clean(storage, &setup)
                .map(Opened::Clean)
                .map_err(io::Error::other);
        }
        Recovery::read(storage, setup, |claim| Ok(self.allows(claim)))
            .map(Opened::Dirty)
            .map_err(io::Error::other)
    }

    /// Opens the journal for writing, recovered if need be.
    ///
    /// # Errors
    /// As [`TestImage::journal`], or that of recovering it.
    pub fn recovered(&self) -> io::Result<Journal> {
        match self.journal()? {
            Opened::Clean(journal) => Ok(journal),
            Opened::Dirty(recovery) => {
                let epoch = Epoch::new(self.setup()?.epoch.get() + 1);
                let replayed = recovery.replay().map_err(io::Error::other)?;
                replayed.restart(self, epoch).map_err(io::Error::other)
            }
        }
    }

    /// What the superblock says.
    ///
    /// # Errors
    /// The error of the storage, or a superblock that is none.
    pub fn setup(&self) -> io::Result<JournalSetup> {
        let header = *self.locked();
        let bytes = self.superblocks()?;
        let choice = SuperblockChoice::new(&bytes[0], &bytes[1]).map_err(io::Error::other)?;
        let (_, superblock) = choice.current().ok_or_else(|| io::Error::other("no superblock"))?;
        let section = superblock.section(SectionType::JOURNAL);
        let section = section.ok_or_else(|| io::Error::other("no journal"))?;
        Ok(JournalSetup {
            ring: JournalRing::parse(section.payload(), &header).map_err(io::Error::other)?,
            uuid: superblock.uuid(),
            epoch: superblock.epoch(),
            generation: superblock.generation(),
            geometry: header.geometry(),
            header_area_len_bytes: header.header_area_len_bytes(),
        })
    }

    /// Where a slot lies: they are counted over all tables.
    #[must_use]
    pub fn slot(&self, number: u64) -> HostOffset {
        HostOffset::new(self.header_area + number * 8)
    }

    /// A record that sets `count` slots to values that begin with `value`: 0, 1, or a number of
    /// clusters above 1, which makes the values that many clusters from the first table.
    #[must_use]
    pub fn record(&self, slot: u64, count: u32, value: u64) -> JournalRecord {
        let at = self.slot(slot);
        let count = NonZeroU32::new(count).expect("runs are not empty");
        match value {
            0 => JournalRecord::L2ClearRun { at, count },
            1 => JournalRecord::L2ZeroRun { at, count },
            _ => {
                let first = HostCluster::new(self.header_area / CLUSTER_LEN + value)
                    .expect("behind the header");
                JournalRecord::L2SetRun { at, count, first }
            }
        }
    }

    /// What a slot holds after such a record: the value that it was made with.
    #[must_use]
    pub fn value_of(&self, entry: u64) -> u64 {
        let past = entry.saturating_sub(self.header_area);
        if entry < CLUSTER_LEN { entry } else { past / CLUSTER_LEN }
    }

    /// The size in clusters at which the tables and `more` clusters behind them fit.
    #[must_use]
    pub fn physical_size(&self, more: u64) -> ClusterCount {
        let area = self.header_area / CLUSTER_LEN;
        ClusterCount::new(area + self.tables() + more)
    }

    /// Slots of all tables.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.tables() * (CLUSTER_LEN / 8)
    }

    fn tables(&self) -> u64 {
        self.locked().image_size() / SECTOR_LEN
    }

    /// The storage that holds the image.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Writes the next superblock, with `builder`'s identity and this ring.
    ///
    /// # Errors
    /// The error of the storage.
    pub fn write_superblock(
        &self,
        mut builder: SuperblockBuilder,
        ring: &JournalRing,
    ) -> io::Result<qed_spec::Generation> {
        builder.set_section(SectionType::JOURNAL, &ring.encode()).map_err(io::Error::other)?;
        let bytes = self.superblocks()?;
        let choice = SuperblockChoice::new(&bytes[0], &bytes[1]).map_err(io::Error::other)?;
        let next = choice.next_write().ok_or_else(|| io::Error::other("no generation left"))?;
        let (copy, generation) = next;
        self.storage.write_at(&builder.encode(generation), copy.offset().get())?;
        Ok(generation)
    }

    /// A builder that keeps what the superblock says.
    ///
    /// # Errors
    /// As [`TestImage::setup`].
    pub fn superblock(&self) -> io::Result<SuperblockBuilder> {
        let bytes = self.superblocks()?;
        let choice = SuperblockChoice::new(&bytes[0], &bytes[1]).map_err(io::Error::other)?;
        let (_, current) = choice.current().ok_or_else(|| io::Error::other("no superblock"))?;
        Ok(SuperblockBuilder::from_superblock(&current))
    }

    fn superblocks(&self) -> io::Result<[[u8; SUPERBLOCK_LEN_BYTES]; 2]> {
        let mut bytes = [[0; SUPERBLOCK_LEN_BYTES]; 2];
        for (copy, bytes) in [SuperblockCopy::A, SuperblockCopy::B].into_iter().zip(&mut bytes) {
            self.storage.read_at(bytes, copy.offset().get())?;
        }
        Ok(bytes)
    }

    /// What [`Recovery::read`] asks: slots lie in the tables; where the image ends nobody minds.
    #[must_use]
    pub fn allows(&self, claim: Claim) -> bool {
        let header = self.locked();
        let tables = self.header_area + header.image_size() / SECTOR_LEN * CLUSTER_LEN;
        match claim {
            Claim::PhysicalSize(_) => true,
            Claim::Record(record) => {
                record.slots(header.geometry()).is_none_or(|slots| slots.end().get() <= tables)
            }
        }
    }

    fn set_bit(&self, set: bool) -> io::Result<()> {
        let mut header = self.locked();
        let mut fields = *header.fields();
        fields.features.set(Features::JOURNAL_ACTIVE, set);
        *header = header.with_fields(fields, self.storage.len()?).map_err(io::Error::other)?;
        self.write_header(*header)
    }

    fn write_header(&self, header: Header) -> io::Result<()> {
        let mut sector = [0; 512];
        sector[..64].copy_from_slice(&header.encode());
        self.storage.write_at(&sector, 0)
    }

    fn locked(&self) -> MutexGuard<'_, Header> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner for TestImage {
    fn set_active(&self) -> io::Result<()> {
        self.set_bit(true)?;
        self.storage.flush()
    }

    fn clear_active(&self) -> io::Result<()> {
        self.set_bit(false)
    }

    fn move_tail(&self, to: TailMove) -> io::Result<TailMoved> {
        let mut builder = self.superblock()?;
        builder.set_epoch(to.epoch());
        let generation = self.write_superblock(builder, to.ring())?;
        self.storage.flush()?;
        Ok(to.durable(generation))
    }
}
