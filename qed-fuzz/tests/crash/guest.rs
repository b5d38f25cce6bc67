//! What a guest was told, and what it may find after a crash: for each sector the content at the
//! last acknowledged flush or any that was asked for since.

use std::collections::BTreeMap;

use qed_fuzz::{SECTOR, Sector};

/// Names a content; [`ZERO`] is that of sectors nobody wrote.
pub(crate) type Tag = u32;

pub(crate) const ZERO: Tag = 0;
/// The content of the backing file.
pub(crate) const BACKING: Tag = 1;

/// The bytes of a sector with a tag: other sectors with the same tag look different.
pub(crate) fn content(tag: Tag, sector: u64) -> Sector {
    let mut bytes = [0; SECTOR as usize];
    if tag != ZERO {
        let word = (u64::from(tag) << 32) | (sector + 1);
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&word.to_le_bytes()));
    }
    bytes
}

/// Something that happened to the guest when `position` storage operations had been recorded.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) position: usize,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A write of sectors was asked for, or of zeros.
    Asked {
        first: u64,
        count: u64,
        tag: Tag,
    },
    /// A flush, or something that flushes, was acknowledged.
    Acknowledged,
    /// A resize to this many sectors was asked for.
    ResizeAsked(u64),
    /// It was acknowledged.
    Resized(u64),
    /// The backing file name was to become another.
    Renaming(Option<Vec<u8>>),
    Renamed,
}

/// What the disk may be.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    backing_sectors: u64,
    sectors: BTreeMap<u64, Vec<Tag>>,
    /// In sectors.
    pub(crate) sizes: Vec<u64>,
    pub(crate) names: Vec<Option<Vec<u8>>>,
}

impl Guest {
    pub(crate) fn new(size: u64, backing_sectors: u64, name: Option<Vec<u8>>) -> Self {
        let tag = |sector| if sector < backing_sectors { BACKING } else { ZERO };
        let sectors = (0..size).map(|sector| (sector, vec![tag(sector)])).collect();
        Self { backing_sectors, sectors, sizes: vec![size], names: vec![name] }
    }

    /// As it was when a crash happened after `position` storage operations.
    pub(crate) fn at(&self, events: &[Event], position: usize) -> Self {
        let mut then = self.clone();
        let before = events.iter().take_while(|event| event.position <= position);
        before.for_each(|event| then.happens(&event.what));
        then
    }

    pub(crate) fn allows(&self, sector: u64, found: &[u8]) -> bool {
        let allowed = self.sectors.get(&sector);
        allowed.is_some_and(|tags| tags.iter().any(|tag| content(*tag, sector)[..] == *found))
    }

    fn happens(&mut self, what: &What) {
        match what {
            What::Asked { first, count, tag } => {
                for sector in *first..first + count {
                    self.sectors.entry(sector).or_default().push(*tag);
                }
            }
            What::Acknowledged => self.acknowledge(),
            What::ResizeAsked(size) => self.resize_asked(*size),
            What::Resized(size) => {
                self.acknowledge();
                self.sizes = vec![*size];
                self.sectors.retain(|sector, _| sector < size);
            }
            What::Renaming(name) => self.names.push(name.clone()),
            What::Renamed => {
                self.acknowledge();
                self.names.drain(..self.names.len() - 1);
            }
        }
    }

    fn acknowledge(&mut self) {
        for tags in self.sectors.values_mut() {
            tags.drain(..tags.len() - 1);
        }
    }

    fn resize_asked(&mut self, size: u64) {
        let old = self.sizes[self.sizes.len() - 1];
        for sector in old..size {
            self.sectors.insert(sector, vec![ZERO]);
        }
        // What a shrink deletes may be gone before the disk is smaller.
        for (sector, tags) in self.sectors.range_mut(size..) {
            tags.push(ZERO);
            if *sector < self.backing_sectors {
                tags.push(BACKING);
            }
        }
        self.sizes.push(size);
    }
}
