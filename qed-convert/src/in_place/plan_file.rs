//! The plan of a conversion that has no room for notes in the file itself: kept beside it until the
//! conversion is over, so that a call after a crash knows how far the one before came.
//!
//! Owns the bytes of a plan and the file that holds them; knows no order of steps.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::in_place::step::SECTOR_LEN;

const MAGIC: [u8; 8] = *b"QEDPLAN1";
const PLAN_LEN: usize = 24 + 2 * SECTOR_LEN;

/// Keeps the plan of a conversion while it is under way.
pub trait PlanStore {
    /// The plan that is kept, if there is one.
    ///
    /// # Errors
    /// It could not be read.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Keeps a plan in place of any other: whole and durable when it returns.
    ///
    /// # Errors
    /// It could not be kept.
    fn save(&self, plan: &[u8]) -> io::Result<()>;

    /// Drops the plan durably.
    ///
    /// # Errors
    /// It could not be dropped.
    fn remove(&self) -> io::Result<()>;
}

/// The plan of the file `FILE`, kept as `FILE.qed-convert` in the same folder.
#[derive(Debug, Clone)]
pub struct PlanFile(PathBuf);

impl PlanFile {
    /// The plan of the file at `path`.
    #[must_use]
    pub fn beside(path: &Path) -> Self {
        Self(with_suffix(path, ".qed-convert"))
    }

    /// Where the plan is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn flush_folder(&self) -> io::Result<()> {
        let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl PlanStore for PlanFile {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    fn save(&self, plan: &[u8]) -> io::Result<()> {
        let unfinished = with_suffix(&self.0, ".new");
        let mut file = File::create(&unfinished)?;
        file.write_all(plan)?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.0)?;
        self.flush_folder()
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.flush_folder()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Which way a conversion goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    RawToQed,
    QedToRaw,
}

/// What a call after a crash needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    /// Bytes of the raw file.
    pub(crate) raw_len: u64,
    /// Sector 0 before the commit.
    pub(crate) old: [u8; SECTOR_LEN],
    /// Sector 0 after the commit.
    pub(crate) new: [u8; SECTOR_LEN],
}

/// The bytes are no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("these bytes are not the plan of a conversion")]
pub struct NotAPlan;

impl Plan {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let way: u64 = match self.way {
            Way::RawToQed => 1,
            Way::QedToRaw => 2,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(way.to_le_bytes());
        bytes.extend(self.raw_len.to_le_bytes());
        bytes.extend(self.old);
        bytes.extend(self.new);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, NotAPlan> {
        let bytes: &[u8; PLAN_LEN] = bytes.try_into().map_err(|_| NotAPlan)?;
        let word = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of a plan"))
        };
        let sector = |at: usize| bytes[at..at + SECTOR_LEN].try_into().expect("a sector of a plan");
        let way = match word(8) {
            1 => Way::RawToQed,
            2 => Way::QedToRaw,
            _ => return Err(NotAPlan),
        };
        if bytes[..8] != MAGIC {
            return Err(NotAPlan);
        }
        Ok(Self { way, raw_len: word(16), old: sector(24), new: sector(24 + SECTOR_LEN) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written_and_nothing_else_is_one() {
        for way in [Way::RawToQed, Way::QedToRaw] {
            let plan = Plan { way, raw_len: 12_345, old: [1; SECTOR_LEN], new: [2; SECTOR_LEN] };
            let bytes = plan.encode();
            assert_eq!(Plan::parse(&bytes), Ok(plan));
            assert_eq!(Plan::parse(&bytes[1..]), Err(NotAPlan));
            for at in [0, 7, 8, 15] {
                let mut other = bytes.clone();
                other[at] ^= 0x40;
                assert_eq!(Plan::parse(&other), Err(NotAPlan), "{at}");
            }
        }
    }
}
