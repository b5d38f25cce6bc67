//! Sector 0, and the one list of features that these libraries open. Changes nothing: the writer of the
//! sector keeps its bytes.

use qed_io::Storage;
use qed_spec::{Features, HEADER_SECTOR_LEN_BYTES, Header, HeaderError};

use crate::error::{ReadError, read};

/// The incompatible features that these libraries open; JOURNAL_ACTIVE where there is a journal, which
/// the superblock says.
// spec: QED-FEAT-01
pub const SUPPORTED: Features =
    Features::CLASSIC.union(Features::JOURNAL_ACTIVE).union(Features::CONVERSION_HOLD);

/// Of those the ones of an image whose tables say everything: its journal was replayed, or it has none.
pub const SUPPORTED_WITHOUT_LOG: Features = SUPPORTED.difference(Features::JOURNAL_ACTIVE);

/// The first sector of an image file, as far as the file has it.
#[derive(Debug, Clone, Copy)]
pub struct FirstSector {
    bytes: [u8; HEADER_SECTOR_LEN_BYTES],
    /// Bytes of it that the file has.
    len: usize,
    file_len: u64,
}

impl FirstSector {
    /// Reads the sector of a file of `file_len` bytes.
    ///
    /// # Errors
    /// The storage's.
    pub fn read(storage: &dyn Storage, file_len: u64) -> Result<Self, ReadError> {
        let mut bytes = [0; HEADER_SECTOR_LEN_BYTES];
        let len = usize::try_from(file_len).unwrap_or(usize::MAX).min(bytes.len());
        read(storage, &mut bytes[..len], 0)?;
        Ok(Self { bytes, len, file_len })
    }

    /// The header, for a program that opens images with the features `supported`.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn header(&self, supported: Features) -> Result<Header, HeaderError> {
        Header::parse(&self.bytes[..self.len], self.file_len, supported)
    }

    /// The bytes; zeros where the file ends before.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; HEADER_SECTOR_LEN_BYTES] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use qed_io::MemoryStorage;

    use super::*;
    use crate::tests::{COMPAT, header, image};

    #[test]
    fn the_sector_is_read_as_far_as_the_file_has_it() {
        let bytes = image(&header(0, 0), COMPAT);
        let read = |len: usize| {
            let storage = MemoryStorage::new(bytes[..len].to_vec());
            FirstSector::read(&storage, len as u64).unwrap()
        };
        let whole = read(bytes.len());
        assert_eq!(whole.bytes()[..], bytes[..512]);
        assert_eq!(whole.header(SUPPORTED), Ok(header(0, 0)));
        for (len, found) in [(0, 0), (63, 63)] {
            let error = read(len).header(SUPPORTED).unwrap_err();
            assert!(matches!(error, HeaderError::Truncated { found: it, .. } if it == found));
        }
    }

    #[test]
    fn a_log_is_the_one_feature_that_tables_do_not_show() {
        assert_eq!(SUPPORTED.bits(), 0b111 | 1 << 32 | 1 << 36);
        assert_eq!(SUPPORTED_WITHOUT_LOG.bits(), 0b111 | 1 << 36);
    }
}
