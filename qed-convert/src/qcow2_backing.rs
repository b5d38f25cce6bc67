//! Another backing file name in the header of a QCOW2 image; nothing but cluster 0 is written.
//!
//! Owns the order of the writes: what the new header needs behind the first sector is durable before
//! that sector, which is written whole or not at all, names it, and what the header needs until then
//! is left alone. Step names are those of docs/write-ordering.md. Locks are the caller's.

mod area;

use std::io;
use std::ops::Range;

use qed_io::Storage;
use thiserror::Error;

use crate::qcow2::{Qcow2FormatError, Qcow2Header, Qcow2OpenError};
use area::{Area, Extension};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const MAX_NAME_LEN: usize = 1023;
const MAX_FORMAT_LEN: usize = 15;
/// Cluster 0 from here on is nobody's who does not say so: the record of a conversion in place, say.
const UNCLAIMED: usize = 2048;

/// The backing file that an image gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2Backing<'a> {
    /// 1 to 1023 bytes.
    pub name: &'a [u8],
    /// 1 to 15 bytes.
    pub format: &'a [u8],
}

/// Why the header was not changed; it is what it was, unless the step was `commit` or `erase`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetQcow2BackingError {
    /// The image does not open.
    #[error(transparent)]
    Open(#[from] Qcow2OpenError),
    /// The header that would be written breaks a rule.
    #[error("the new header")]
    Header(#[from] Qcow2FormatError),
    /// A program marked it.
    #[error("the image is marked corrupt: repair it first (qemu-img check -r all)")]
    MarkedCorrupt,
    /// The name or its format is empty or too long.
    #[error("a backing file has a name of 1 to 1023 bytes and a format of 1 to 15")]
    Name,
    /// Names and extensions fill the first cluster, or lie where one sector cannot change them.
    #[error(
        "the first cluster has no room for this name beside what a crash must leave: use a shorter \
         name, or qemu-img rebase -u, which a crash may cut short"
    )]
    NoRoom,
    /// The storage failed.
    #[error("step '{step}'")]
    Io {
        /// The name of the step.
        step: &'static str,
        /// What the storage said.
        #[source]
        source: io::Error,
    },
}

/// Gives the QCOW2 image in `storage` another backing file, or none; durable when it returns.
///
/// Interrupted at any moment, the image names the old file in its old format or the new one in its
/// new format. All other header extensions stay byte for byte, and so do snapshots and bitmaps: no
/// cluster but the first is touched. A dirty image stays dirty; autoclear bits of features that are
/// not known are cleared.
///
/// # Errors
/// An image that does not open or is marked corrupt, a name without room, the storage's errors.
pub fn set_qcow2_backing(
    storage: &dyn Storage,
    backing: Option<Qcow2Backing<'_>>,
) -> Result<(), SetQcow2BackingError> {
    let legal = |bytes: &[u8], max: usize| (1..=max).contains(&bytes.len());
    if backing.is_some_and(|it| !legal(it.name, MAX_NAME_LEN) || !legal(it.format, MAX_FORMAT_LEN))
    {
        return Err(SetQcow2BackingError::Name);
    }
    let header = Qcow2Header::read(storage)?;
    if header.is_corrupt() {
        return Err(SetQcow2BackingError::MarkedCorrupt);
    }
    let file_len = storage.len().map_err(failed("scan"))?;
    let len = usize::try_from(header.cluster_size().min(file_len)).expect("at most 2 MiB");
    let mut old = vec![0; len];
    storage.read_at(&mut old, 0).map_err(failed("scan"))?;
    for new in steps(&old, backing).ok_or(SetQcow2BackingError::NoRoom)? {
        // What is going to be the header is read as one before it is written.
        Qcow2Header::parse(&new.bytes, file_len)?;
        new.write(storage, &old)?;
        old = new.afterwards();
    }
    Ok(())
}

/// The contents of cluster 0 one after the other, each safe to write over the one before: mostly one.
fn steps(old: &[u8], backing: Option<Qcow2Backing<'_>>) -> Option<Vec<New>> {
    let area = Area::of(old)?;
    let name = backing.map(|backing| backing.name);
    let list = match backing {
        Some(backing) => area.with_format(backing.format),
        None => area.without_format(),
    };
    let (start, len) = (area.start, area::len_of(&list));
    if let Some(new) = New::over(old, &area, &list, name, start) {
        return Some(vec![new]);
    }
    // What lies across sectors cannot move at once: the header of version 3 says where extensions
    // begin, so that they are aside while they move.
    let used = area.end.max(area.name_end()).max(start + len + name.map_or(0, <[u8]>::len));
    let aside = used.max(SECTOR).next_multiple_of(8);
    let first = New::over(old, &area, &list, name, aside)?;
    let between = first.afterwards();
    let second = New::over(&between, &Area::of(&between)?, &list, name, start)?;
    Some(vec![first, second])
}

/// What cluster 0 is going to be.
struct New {
    bytes: Vec<u8>,
    /// Behind the first sector, what is written before it.
    before: Range<usize>,
    /// Behind the first sector, what nothing needs any more.
    free: Vec<Range<usize>>,
}

impl New {
    /// The cluster with these extensions from byte `start` on and this name, if it can be written over
    /// `old`.
    fn over(
        old: &[u8],
        area: &Area,
        extensions: &[Extension],
        name: Option<&[u8]>,
        start: usize,
    ) -> Option<Self> {
        let end = start + area::len_of(extensions);
        let taken = area.name_end().max(end);
        [end, taken, area.end.max(taken)].into_iter().find_map(|at| {
            let name = name.map(|name| (at, name));
            Self::with(old, area, extensions, start..end, name)
        })
    }

    fn with(
        old: &[u8],
        area: &Area,
        extensions: &[Extension],
        range: Range<usize>,
        name: Option<(usize, &[u8])>,
    ) -> Option<Self> {
        let mut bytes = old.to_vec();
        let list: Vec<u8> = extensions.iter().flat_map(|it| it.bytes.clone()).collect();
        bytes.get_mut(range.clone())?.copy_from_slice(&list);
        let place = name.map(|(at, name)| at..at + name.len());
        if let Some((at, name)) = name {
            bytes.get_mut(at..at + name.len())?.copy_from_slice(name);
        }
        area::set_fields(&mut bytes, area.start, range.start, place.clone())?;
        let needed = [range, place.unwrap_or(0..0)];
        let was_needed = [area.start..area.end, area.name.clone().unwrap_or(0..0)];
        let is_in = |ranges: &[Range<usize>], at| ranges.iter().any(|range| range.contains(&at));
        let is_free = |at: &usize| is_in(&was_needed, *at) && !is_in(&needed, *at);
        // The first sector changes with them; behind it nothing may that is still needed.
        let behind = SECTOR.min(bytes.len())..bytes.len();
        (0..behind.start).filter(is_free).for_each(|at| bytes[at] = 0);
        let changed = |at: &usize| bytes[*at] != old[*at];
        let clashes = |at: usize| is_in(&was_needed, at) || (at >= UNCLAIMED && old[at] != 0);
        if behind.clone().filter(changed).any(clashes) {
            return None;
        }
        let first = behind.clone().find(changed).unwrap_or(behind.end);
        let last = behind.clone().rfind(changed).map_or(first, |at| at + 1);
        let free = behind.filter(is_free).map(|at| at..at + 1).collect::<Vec<_>>();
        let free = free.chunk_by(|one, next| one.end == next.start);
        let free = free.map(|run| run[0].start..run[run.len() - 1].end).collect();
        Some(Self { bytes, before: first..last, free })
    }

    /// The cluster when all is written and erased.
    fn afterwards(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        self.free.iter().for_each(|free| bytes[free.clone()].fill(0));
        bytes
    }

    fn write(&self, storage: &dyn Storage, old: &[u8]) -> Result<(), SetQcow2BackingError> {
        // Step "name": what only the new header needs.
        if !self.before.is_empty() {
            let at = self.before.start as u64;
            storage.write_at(&self.bytes[self.before.clone()], at).map_err(failed("name"))?;
            storage.flush().map_err(failed("name"))?;
        }
        // Step "commit".
        let sector = ..SECTOR.min(self.bytes.len());
        if self.bytes[sector] != old[sector] {
            storage.write_at(&self.bytes[sector], 0).map_err(failed("commit"))?;
        }
        storage.flush().map_err(failed("commit"))?;
        if self.free.is_empty() {
            return Ok(());
        }
        // Step "erase": whoever lengthens the extensions finds zeros behind them.
        for free in &self.free {
            let range = free.start as u64..free.end as u64;
            storage.write_zeroes(range).map_err(failed("erase"))?;
        }
        storage.flush().map_err(failed("erase"))
    }
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> SetQcow2BackingError {
    move |source| SetQcow2BackingError::Io { step, source }
}
