//! Every entry of the tables of a QCOW2 image as it is now, in the order of the guest.
//!
//! Reads each table once and keeps one in memory; whether two entries name one cluster is for the
//! caller to see.

use qed_io::Storage;
use qed_spec::{HostOffset, L1Index, L2Index};

use super::entry::{Cluster, EntryRules};
use super::error::{Qcow2Corruption, Qcow2Part, Qcow2ReadError};
use super::header::Qcow2Header;

/// The tables of an image.
#[derive(Debug)]
pub(crate) struct References<'a> {
    storage: &'a dyn Storage,
    header: &'a Qcow2Header,
    rules: EntryRules,
}

/// One L2 table.
#[derive(Debug)]
pub(crate) struct L2Table<'a> {
    l1: u64,
    /// First byte in the file.
    pub(crate) at: HostOffset,
    words: &'a [u64],
    rules: EntryRules,
}

impl<'a> References<'a> {
    /// The tables that `header` names, in a file of `file_len` bytes.
    pub(crate) fn new(storage: &'a dyn Storage, header: &'a Qcow2Header, file_len: u64) -> Self {
        let has_zero_flag = header.version() >= 3;
        let rules = EntryRules { geometry: header.geometry(), has_zero_flag, file_len };
        Self { storage, header, rules }
    }

    /// Calls `look` for each L2 table.
    ///
    /// # Errors
    /// The storage's, an L1 entry that breaks a rule, and those of `look`.
    pub(crate) fn for_each_table<E: From<Qcow2ReadError>>(
        &self,
        mut look: impl FnMut(&L2Table<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let l1 = self.header.l1();
        // At most 32 MiB: the header was checked.
        let entries = self.words(Qcow2Part::L1Table, l1.offset, u64::from(l1.entries) * 8)?;
        for (l1, value) in (0..).zip(entries) {
            let table = self.rules.l2_table(value).map_err(|fault| {
                Qcow2ReadError::from(Qcow2Corruption::L1Entry {
                    l1: L1Index::new(l1),
                    value,
                    fault,
                })
            })?;
            let Some(at) = table else { continue };
            let words = self.words(Qcow2Part::L2Table, at.get(), self.header.cluster_size())?;
            look(&L2Table { l1, at, words: &words, rules: self.rules })?;
        }
        Ok(())
    }

    fn words(&self, what: Qcow2Part, at: u64, len: u64) -> Result<Vec<u64>, Qcow2ReadError> {
        let mut bytes = vec![0; usize::try_from(len).expect("at most 32 MiB")];
        let place = HostOffset::new(at);
        self.storage.read_at(&mut bytes, at).map_err(Qcow2ReadError::io(what, place))?;
        let (words, _) = bytes.as_chunks();
        Ok(words.iter().map(|word| u64::from_be_bytes(*word)).collect())
    }
}

impl L2Table<'_> {
    /// The clusters of the guest that the table maps, by number; those that it says nothing of are
    /// left out.
    pub(crate) fn clusters(
        &self,
    ) -> impl Iterator<Item = Result<(u64, Cluster), Qcow2ReadError>> + '_ {
        let per_entry = usize::try_from(self.rules.geometry.words_per_entry()).expect("1 or 2");
        let entries = self.words.chunks_exact(per_entry);
        let first = self.l1 * entries.len() as u64;
        let named = (0..).zip(entries).filter(|(_, words)| words.iter().any(|word| *word != 0));
        named.map(move |(slot, words)| {
            let cluster = self.rules.cluster(words).map_err(|fault| Qcow2Corruption::L2Entry {
                l1: L1Index::new(self.l1),
                l2: L2Index::new(slot),
                value: words[0],
                fault,
            })?;
            Ok((first + slot, cluster))
        })
    }
}
