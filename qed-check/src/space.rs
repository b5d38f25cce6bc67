//! What the superblock says of space that nothing names: whether the next writer uses it, and where the
//! image ends on a block device.
//!
//! Knows no cluster in use: which they are, the tables say.

use std::ops::Range;

use qed_io::{Growth, Storage};
use qed_layout::{SuperblockBytes, stored_physical_size};
use qed_spec::{ConsistencyMode, SectionType};

use crate::error::CheckError;
use crate::layout::Layout;

/// How space that nothing names is judged in one image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    /// Whether it is free space; leaks in a classic image.
    pub(crate) is_free: bool,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// The file's length says it.
    OfFile,
    /// The cluster after the last that was handed out on a block device, as far as that is recorded.
    Recorded(u64),
}

impl Space {
    /// Reads the superblock. One that cannot be chosen, or that names no known mode, says nothing.
    // spec: QED-CHK-02, QED-DEV-05
    pub(crate) fn read(storage: &dyn Storage, layout: &Layout) -> Result<Self, CheckError> {
        let bytes = SuperblockBytes::read(storage, &layout.header)?;
        let choice = bytes.as_ref().and_then(|bytes| bytes.choose().ok());
        let current = choice.as_ref().and_then(|choice| choice.current()).map(|(_, it)| it);
        let mode = current.and_then(|it| it.section(SectionType::MODE));
        let end = match storage.growth() {
            Growth::Zeros => End::OfFile,
            Growth::Stale => {
                let recorded = current.and_then(|it| stored_physical_size(&it, &layout.header));
                let bytes = recorded.map_or(0, |it| it.physical_size());
                // One that the device does not have was recorded of another.
                let bytes = Some(bytes).filter(|bytes| *bytes <= layout.file_len);
                End::Recorded(bytes.unwrap_or(0) >> layout.cluster_bits())
            }
        };
        let is_free = mode.is_some_and(|mode| ConsistencyMode::parse(mode.payload()).is_ok());
        Ok(Self { is_free, end })
    }

    /// Whether the image ends with its file, so that it can be cut.
    pub(crate) const fn ends_with_file(&self) -> bool {
        matches!(self.end, End::OfFile)
    }

    /// The cluster after the last that counts as the image's, where nothing names those of `rest`, with
    /// which the storage ends.
    pub(crate) fn end(&self, rest: &Range<u64>) -> u64 {
        match self.end {
            End::OfFile => rest.end,
            End::Recorded(end) => end.clamp(rest.start, rest.end),
        }
    }
}
