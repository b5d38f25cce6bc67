//! The file or device that a sink writes, with errors that say what was being done where.

use std::ops::Range;
use std::sync::Arc;

use qed_io::{Growth, Storage};

use crate::convert::{ConvertError, WriteAction};
use crate::target::SharedRun;

pub(crate) struct TargetFile {
    pub(crate) storage: Arc<dyn Storage>,
    /// Whether flushes are carried out.
    pub(crate) durable: bool,
}

impl TargetFile {
    /// Whether space that was never written reads as zeros.
    pub(crate) fn grows_with_zeros(&self) -> bool {
        self.storage.growth() == Growth::Zeros
    }

    pub(crate) fn len(&self) -> Result<u64, ConvertError> {
        self.storage.len().map_err(ConvertError::write(WriteAction::Length, 0))
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<(), ConvertError> {
        self.storage.set_len(len).map_err(ConvertError::write(WriteAction::Length, len))
    }

    pub(crate) fn write(
        &self,
        action: WriteAction,
        bytes: &[u8],
        at: u64,
    ) -> Result<(), ConvertError> {
        self.storage.write_at(bytes, at).map_err(ConvertError::write(action, at))
    }

    /// As [`Storage::sharing_unit`].
    pub(crate) fn sharing_unit(&self, source: &dyn Storage) -> Option<u64> {
        self.storage.sharing_unit(source)
    }

    /// As [`Storage::share`].
    pub(crate) fn share(&self, run: &SharedRun<'_>, at: u64) -> bool {
        let len = run.guest.end - run.guest.start;
        self.storage.share(run.source, run.from..run.from + len, at)
    }

    pub(crate) fn write_zeroes(&self, range: Range<u64>) -> Result<(), ConvertError> {
        let at = range.start;
        self.storage.write_zeroes(range).map_err(ConvertError::write(WriteAction::Zeros, at))
    }

    pub(crate) fn flush(&self) -> Result<(), ConvertError> {
        if !self.durable {
            return Ok(());
        }
        self.storage.flush().map_err(ConvertError::write(WriteAction::Flush, 0))
    }
}
