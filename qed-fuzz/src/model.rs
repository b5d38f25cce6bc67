//! The model: a virtual disk as nothing but its bytes.

use crate::operation::{Operation, content};
use crate::size::usize_of;

/// What a disk must read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    bytes: Vec<u8>,
}

impl Model {
    /// A disk of `size` bytes, all zeros.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { bytes: vec![0; usize_of(size)] }
    }

    /// A disk with these bytes.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// A new overlay of `size` bytes over a backing file that reads as `backing`.
    #[must_use]
    pub fn over(backing: &Self, size: u64) -> Self {
        let mut bytes = backing.bytes.clone();
        bytes.resize(usize_of(size), 0);
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

    /// Replaces the bytes from `at` on, as far as they lie inside the disk.
    pub(crate) fn fill(&mut self, at: u64, bytes: &[u8]) {
        let start = usize_of(at).min(self.bytes.len());
        let end = usize_of(at).saturating_add(bytes.len()).min(self.bytes.len());
        self.bytes[start..end].copy_from_slice(&bytes[..end - start]);
    }

    /// Does what a correct disk would do.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { range, fill } => {
                let data = content(*fill, range.clone());
                self.bytes[usize_of(range.start)..usize_of(range.end)].copy_from_slice(&data);
            }
            Operation::WriteZeroes { range } | Operation::Unmap { range } => {
                self.bytes[usize_of(range.start)..usize_of(range.end)].fill(0);
            }
            Operation::Read { .. } | Operation::Flush => {}
            Operation::Resize { size } => self.bytes.resize(usize_of(*size), 0),
        }
    }
}
