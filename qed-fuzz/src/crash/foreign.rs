//! A program that knows no extension: opens a closed image for writing, appends a cluster as QEMU does
//! and leaves what a program of its kind may leave after a crash, bytes past the last cluster.
//!
//! Knows the classic format by heart, so that no code of the libraries speaks for it.

use qed_io::Storage;

use super::run::{Runner, StepError};
use super::workload::{CRASH_CLUSTER, FOREIGN_CLUSTER};
use crate::sparse::{EMPTY, SECTOR};

const CLUSTER: u64 = CRASH_CLUSTER * SECTOR;
/// Places in sector 0.
const AUTOCLEAR: u64 = 32;
const L1_OFFSET: u64 = 40;
const IMAGE_SIZE: u64 = 48;

impl Runner {
    /// Does all of it; the image is closed.
    pub(crate) fn foreign(&mut self) -> Result<(), StepError> {
        let storage = self.storage.clone();
        storage.write_at(&[0; 8], AUTOCLEAR)?;
        storage.flush()?;
        let table = read(&*storage, read(&*storage, L1_OFFSET)?)?;
        let fits = (FOREIGN_CLUSTER + 1) * CLUSTER <= read(&*storage, IMAGE_SIZE)?;
        let slot = table + FOREIGN_CLUSTER * 8;
        if table != 0 && fits && read(&*storage, slot)? <= 1 {
            let end = storage.len()?.next_multiple_of(CLUSTER);
            let (_, data) = self.ask(FOREIGN_CLUSTER * CRASH_CLUSTER, CRASH_CLUSTER);
            storage.write_at(&data, end)?;
            storage.flush()?;
            storage.write_at(&end.to_le_bytes(), slot)?;
            storage.flush()?;
            self.acknowledge(Vec::new());
        }
        let left = EMPTY.map(|_| 0xf0);
        storage.write_at(&left, storage.len()?.next_multiple_of(CLUSTER))?;
        Ok(storage.flush()?)
    }
}

fn read(storage: &dyn Storage, at: u64) -> Result<u64, StepError> {
    let mut word = [0; 8];
    storage.read_at(&mut word, at)?;
    Ok(u64::from_le_bytes(word))
}
