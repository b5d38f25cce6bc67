//! One program's time with a test image, mutated or not.

use std::io;
use std::sync::Arc;

use qed_fuzz::SECTOR;
use qed_io::Storage;
use qed_journal::{Batch, DataOrder, Journal, Opened, Owner, TestImage};
use qed_spec::Epoch;

use crate::mutant::{Mutant, MutantOwner, Mutated};
use crate::workload::Set;

/// What all slots of the tables hold.
pub(crate) type Tables = Vec<u64>;

/// Slots of all tables of a test image.
pub(crate) const SLOTS: u64 = TestImage::TABLES * 512;

pub(crate) const RING_BLOCKS: u64 = 8;
const RING: std::ops::Range<u64> = 16384..16384 + RING_BLOCKS * 4096;

/// An open test image and its journal.
pub(crate) struct Session {
    image: TestImage,
    pub(crate) journal: Journal,
    mutant: Mutant,
}

impl Session {
    /// Opens, and recovers if need be.
    pub(crate) fn open(storage: Arc<dyn Storage>, mutant: Mutant) -> io::Result<Self> {
        let mutated: Arc<dyn Storage> = Arc::new(Mutated::new(storage, mutant));
        let image = TestImage::open(mutated)?;
        let journal = match image.journal()? {
            Opened::Clean(journal) => journal,
            Opened::Dirty(recovery) => {
                let old = image.setup()?.epoch.get();
                let epoch = Epoch::new(old + u64::from(mutant != Mutant::SameEpoch));
                let owner = MutantOwner::new(&image, mutant);
                let replayed = recovery.replay().map_err(io::Error::other)?;
                replayed.restart(&owner, epoch).map_err(io::Error::other)?
            }
        };
        Ok(Self { image, journal, mutant })
    }

    pub(crate) fn commit(&self, sets: &[Set]) -> io::Result<()> {
        self.commit_together(&[sets.to_vec()])
    }

    /// Submits all, then commits them.
    pub(crate) fn commit_together(&self, batches: &[Vec<Set>]) -> io::Result<()> {
        if self.mutant == Mutant::HomeBeforeRecord {
            self.write_home(batches)?;
        }
        let submit = |sets: &Vec<Set>| self.journal.submit(self.batch(sets)).unwrap();
        let tickets: Vec<_> = batches.iter().map(submit).collect();
        for ticket in &tickets {
            self.journal.commit(ticket, &self.owner()).map_err(io::Error::other)?;
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> io::Result<()> {
        self.journal.checkpoint(&self.owner()).map_err(io::Error::other)
    }

    pub(crate) fn quiesce(&self) -> io::Result<()> {
        self.journal.quiesce(&self.owner()).map_err(io::Error::other)
    }

    /// The tables as the journal shows them.
    pub(crate) fn tables(&self) -> io::Result<Tables> {
        let mut bytes = vec![0; SLOTS as usize * 8];
        self.journal.read_at(&mut bytes, self.image.slot(0))?;
        Ok(values(&self.image, &bytes))
    }

    /// Whether blocks with a checksum lie in this sector: garbage in it must do no harm.
    pub(crate) fn is_checksummed(sector: u64) -> bool {
        (8192..16384).contains(&(sector * SECTOR)) || RING.contains(&(sector * SECTOR))
    }

    fn owner(&self) -> impl Owner {
        MutantOwner::new(&self.image, self.mutant)
    }

    fn batch(&self, sets: &[Set]) -> Batch {
        let record = |set: &Set| self.image.record(set.slot, set.count, set.value);
        Batch {
            records: sets.iter().map(record).collect(),
            physical_size: self.image.physical_size(10_000),
            data: DataOrder::Together,
        }
    }

    fn write_home(&self, batches: &[Vec<Set>]) -> io::Result<()> {
        for record in batches.iter().flat_map(|sets| self.batch(sets).records) {
            let slots = record.slots(self.image.setup()?.geometry).unwrap();
            for index in 0..u64::from(slots.count().get()) {
                let value = slots.first() + index * slots.step();
                let at = slots.at().get() + index * 8;
                self.image.storage().write_at(&value.to_le_bytes(), at)?;
            }
        }
        Ok(())
    }
}

/// The tables as a program sees them that only reads, and how many commits it read for that.
pub(crate) fn read_only(storage: Arc<dyn Storage>, mutant: Mutant) -> io::Result<(Tables, u64)> {
    let image = TestImage::open(Arc::new(Mutated::new(storage, mutant)))?;
    let mut bytes = vec![0; SLOTS as usize * 8];
    image.storage().read_at(&mut bytes, image.slot(0).get())?;
    let mut commits = 0;
    if let Opened::Dirty(recovery) = image.journal()? {
        commits = recovery.commits();
        let overlay = recovery.overlay(100_000).map_err(io::Error::other)?;
        overlay.patch(&mut bytes, image.slot(0));
    }
    Ok((values(&image, &bytes), commits))
}

fn values(image: &TestImage, bytes: &[u8]) -> Tables {
    let value = |slot: &[u8]| image.value_of(u64::from_le_bytes(slot.try_into().unwrap()));
    bytes.chunks(8).map(value).collect()
}
