//! The model: a virtual disk as nothing but its bytes.

use crate::operation::{Operation, content};

/// What a disk must read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    bytes: Vec<u8>,
}

impl Model {
    /// A disk of `size` bytes, all zeros.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { bytes: vec![0; index(size)] }
    }

    /// A new overlay of `size` bytes over a backing file that reads as `backing`.
    #[must_use]
    pub fn over(backing: &Self, size: u64) -> Self {
        let mut bytes = backing.bytes.clone();
        bytes.resize(index(size), 0);
        Self { bytes }
    }

    /// The disk's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Does what a correct disk would do.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { range, fill } => {
                let data = content(*fill, range.clone());
                self.bytes[index(range.start)..index(range.end)].copy_from_slice(&data);
            }
            Operation::WriteZeroes { range } => {
                self.bytes[index(range.start)..index(range.end)].fill(0);
            }
            Operation::Read { .. } | Operation::Flush => {}
            Operation::Resize { size } => self.bytes.resize(index(*size), 0),
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a model fits in memory")
}
