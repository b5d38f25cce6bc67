//! The dirty bits of an image, and what they say after a crash: which tables are in doubt.
//!
//! Reads the bitmap; when a bit is set or cleared, and what is wrong with a table, is not known here.

use qed_io::Storage;
use qed_spec::{ConsistencyMode, DirtyBitmap, Features, Header, L1Index, SectionType};

use crate::error::{ReadError, read};
use crate::superblock::{SuperblockBytes, stored_bitmap};

/// The dirty bits as they are in the file: one for each L1 slot whose table a crash may leave in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtyBits {
    bitmap: DirtyBitmap,
    bytes: Vec<u8>,
}

impl DirtyBits {
    /// Reads the bits of `bitmap`.
    ///
    /// # Errors
    /// The storage's.
    pub fn read(storage: &dyn Storage, bitmap: DirtyBitmap) -> Result<Self, ReadError> {
        let mut bytes = vec![0; usize::try_from(bitmap.len_bytes()).unwrap_or(usize::MAX)];
        read(storage, &mut bytes, bitmap.offset().get())?;
        Ok(Self { bitmap, bytes })
    }

    /// Whether the bit of a slot is set.
    // spec: QED-DIRTY-02
    #[must_use]
    pub fn contains(&self, l1: L1Index) -> bool {
        self.bitmap.mark_of(l1).is_some_and(|(byte, mask)| {
            let byte = usize::try_from(byte).ok().and_then(|byte| self.bytes.get(byte));
            byte.is_some_and(|byte| byte & mask != 0)
        })
    }

    /// How many bits are set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bytes.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// The bytes of the bitmap.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Where the bits lie, and the recorded end: tables without a bit name nothing at or above it.
    #[must_use]
    pub const fn bitmap(&self) -> &DirtyBitmap {
        &self.bitmap
    }
}

/// Which tables of an image a crash left in doubt. The open finds it out, once, and hands it
/// to the recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrashLeft {
    /// All of them.
    AllTables,
    /// Those with a dirty bit; at least one has.
    DirtyTables(DirtyBits),
}

impl CrashLeft {
    /// What a crash left of the image with `header`.
    ///
    /// # Errors
    /// The storage's. Whatever else is wrong leaves all tables in doubt.
    // spec: QED-MODE-01, QED-DIRTY-07
    pub fn read(storage: &dyn Storage, header: &Header) -> Result<Self, ReadError> {
        if !header.features().contains(Features::NEED_CHECK) {
            return Ok(Self::AllTables);
        }
        let Some(bitmap) = bitmap_in_compat_mode(storage, header)? else {
            return Ok(Self::AllTables);
        };
        let bits = DirtyBits::read(storage, bitmap)?;
        Ok(if bits.count() == 0 { Self::AllTables } else { Self::DirtyTables(bits) })
    }
}

/// What a recovery did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// What was checked, so what can be believed.
    pub checked: Checked,
    /// Findings that were mended.
    pub mended: u64,
}

/// The tables that a recovery checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// All of them; the dirty bits mean nothing any more.
    AllTables,
    /// Those of [`CrashLeft::DirtyTables`]: of the others, what names space past the recorded end is the
    /// work of another program.
    DirtyTables,
}

/// The bitmap of an image in compat mode whose last writer kept it up.
fn bitmap_in_compat_mode(
    storage: &dyn Storage,
    header: &Header,
) -> Result<Option<DirtyBitmap>, ReadError> {
    let Some(bytes) = SuperblockBytes::read(storage, header)? else { return Ok(None) };
    let Some((_, current)) = bytes.choose().ok().and_then(|choice| choice.current()) else {
        return Ok(None);
    };
    let mode =
        current.section(SectionType::MODE).map(|mode| ConsistencyMode::parse(mode.payload()));
    let is_compat = matches!(mode, Some(Ok(ConsistencyMode::Compat)));
    Ok(stored_bitmap(&current, header).filter(|_| is_compat))
}

#[cfg(test)]
mod tests {
    use qed_io::MemoryStorage;

    use super::*;
    use crate::tests::{BITMAP_AT, COMPAT, JOURNAL, header, image};

    const NEED_CHECK: u64 = 1 << 1;
    const TABLE_DIRTY: u64 = 1 << 32;

    #[test]
    fn a_bit_stands_for_its_slot() {
        let mut bytes = image(&header(0, TABLE_DIRTY), COMPAT);
        (bytes[BITMAP_AT], bytes[BITMAP_AT + 1], bytes[BITMAP_AT + 511]) = (0b101, 0x80, 0x80);
        let storage = MemoryStorage::new(bytes);
        let bitmap = bitmap_in_compat_mode(&storage, &header(0, TABLE_DIRTY)).unwrap().unwrap();
        let bits = DirtyBits::read(&storage, bitmap).unwrap();
        let set: Vec<u64> = (0..5000).filter(|slot| bits.contains(L1Index::new(*slot))).collect();
        assert_eq!(set, [0, 2, 15, 4095]);
        assert_eq!((bits.count(), *bits.bitmap()), (4, bitmap));
    }

    // spec-test: QED-DIRTY-07
    #[test]
    fn single_tables_are_in_doubt_only_where_everything_says_so() {
        let cases = [
            (NEED_CHECK, TABLE_DIRTY, COMPAT, 4, true),
            (0, TABLE_DIRTY, COMPAT, 4, false),
            (NEED_CHECK, 0, COMPAT, 4, false),
            (NEED_CHECK, TABLE_DIRTY, JOURNAL, 4, false),
            (NEED_CHECK, TABLE_DIRTY, 3, 4, false),
            (NEED_CHECK, TABLE_DIRTY, COMPAT, 0, false),
        ];
        for (features, autoclear, mode, bits, expected) in cases {
            let header = header(features, autoclear);
            let mut bytes = image(&header, mode);
            bytes[BITMAP_AT] = bits;
            let left = CrashLeft::read(&MemoryStorage::new(bytes), &header).unwrap();
            let found = matches!(&left, CrashLeft::DirtyTables(bits) if bits.count() == 1);
            assert_eq!(found, expected, "{features:#x} {autoclear:#x} {mode} {bits}: {left:?}");
        }
    }
}
