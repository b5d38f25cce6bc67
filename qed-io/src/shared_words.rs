//! Words in memory that outlive this process: a file of a file system in memory, mapped.
//!
//! Owns a mapping and its length. Knows nothing of what the words say, nor of files on disks: what is
//! written to a mapping of such a file can fail in ways that nobody is told of.

mod sys;

use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FallocateFlags, fallocate, fstat, fstatfs};

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: i64 = 0x0102_1994;

/// Words that any number of threads and processes may load and store; a clone is the same words.
#[derive(Debug, Clone)]
pub struct SharedWords(Words);

#[derive(Debug, Clone)]
enum Words {
    Mapped(Arc<sys::Mapping>),
    Own(Arc<[AtomicU64]>),
}

impl SharedWords {
    /// Maps a file in a `tmpfs` of `words` words, which is made that long first: all of its memory is
    /// there before a word is stored, so that a file system that is full is an error here.
    ///
    /// # Errors
    /// A file elsewhere, one that is longer, and what the kernel refuses.
    pub fn map(file: impl AsFd, words: usize) -> io::Result<Self> {
        let file = file.as_fd();
        let len = (words * size_of::<u64>()) as u64;
        if fstatfs(file)?.f_type != TMPFS {
            let text = "the file does not lie in memory (tmpfs)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        if u64::try_from(fstat(file)?.st_size).is_ok_and(|found| found > len) {
            let text = "the file is longer than what is mapped of it";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        fallocate(file, FallocateFlags::empty(), 0, len)?;
        Ok(Self(Words::Mapped(Arc::new(sys::Mapping::new(file, words)?))))
    }

    /// Words of this process alone, all zero.
    #[must_use]
    pub fn own(words: usize) -> Self {
        Self(Words::Own((0..words).map(|_| AtomicU64::new(0)).collect()))
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        match &self.0 {
            Words::Mapped(mapping) => mapping.words(),
            Words::Own(words) => words,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_is_stored_is_in_the_file_and_in_every_mapping() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let words = SharedWords::map(&file, 512).unwrap();
        words[511].store(7, Ordering::Release);
        let again = SharedWords::map(&file, 512).unwrap();
        assert_eq!(again[511].load(Ordering::Acquire), 7);
        drop(words);
        assert_eq!(again[511].load(Ordering::Acquire), 7, "the other mapping has gone");
    }

    #[test]
    fn a_file_that_is_not_in_memory_or_too_long_is_refused() {
        let on_disk = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let kind = SharedWords::map(&on_disk, 512).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::Unsupported);
        let long = tempfile::tempfile_in("/dev/shm").unwrap();
        File::set_len(&long, 4097).unwrap();
        let kind = SharedWords::map(&long, 512).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::InvalidData);
    }
}
