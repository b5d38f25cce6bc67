//! What a guest was told, and what it may find after a crash: for each sector the content at the
//! last acknowledged flush or any that was asked for since.

use std::collections::BTreeMap;

use qed_core::{Image, ImageError};
use qed_spec::GuestOffset;

use crate::sparse::{EMPTY, SECTOR, Sector};

/// Names a content; [`ZERO`] is that of sectors nobody wrote.
pub(crate) type Tag = u32;

pub(crate) const ZERO: Tag = 0;
/// The content of the backing file.
pub(crate) const BACKING: Tag = 1;

/// The bytes of a sector with a tag: other sectors with the same tag look different.
pub(crate) fn content(tag: Tag, sector: u64) -> Sector {
    let mut bytes = EMPTY;
    let word = word(tag, sector).to_le_bytes();
    bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&word));
    bytes
}

/// What every eight bytes of that sector hold.
pub(crate) fn word(tag: Tag, sector: u64) -> u64 {
    if tag == ZERO { 0 } else { (u64::from(tag) << 32) | (sector + 1) }
}

/// The sector of the disk that this is the content of, or once was before it was punched: some other.
pub(crate) fn guest_sector(bytes: &Sector) -> Option<u64> {
    let half = u32::from_le_bytes(*bytes.first_chunk().expect("a sector has four bytes"));
    half.checked_sub(1).map(u64::from)
}

/// Something that happened to the guest, in the order of the recorder.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) order: u64,
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
    /// A flush, or something that flushes, was acknowledged. It covers all but these writes, which
    /// were not complete when it was asked for.
    Acknowledged {
        under_way: Vec<Tag>,
    },
    /// All requests were answered but these writes. The death of the process alone takes none of them.
    Answered {
        under_way: Vec<Tag>,
    },
    /// A resize to this many sectors was asked for.
    ResizeAsked(u64),
    /// It was done, after a flush.
    Resized(u64),
    /// The backing file name was to become another.
    Renaming(Option<Vec<u8>>),
    Renamed,
}

/// What the disk may be.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    backing_sectors: u64,
    /// The sectors that are looked at, in order.
    watched: Vec<u64>,
    /// What those may hold that lie inside the disk.
    sectors: BTreeMap<u64, Vec<Tag>>,
    /// In sectors.
    pub(crate) sizes: Vec<u64>,
    pub(crate) names: Vec<Option<Vec<u8>>>,
    /// Events that have happened.
    happened: usize,
    /// What was answered stays.
    keeps_answered: bool,
}

impl Guest {
    /// A disk of `size` sectors over a backing file.
    pub(crate) fn new(
        watched: Vec<u64>,
        size: u64,
        backing_sectors: u64,
        name: Option<Vec<u8>>,
    ) -> Self {
        let tag = |sector| if sector < backing_sectors { BACKING } else { ZERO };
        let inside = watched.iter().copied().filter(|sector| *sector < size);
        let sectors = inside.map(|sector| (sector, vec![tag(sector)])).collect();
        let (sizes, names) = (vec![size], vec![name]);
        let keeps_answered = false;
        Self { backing_sectors, watched, sectors, sizes, names, happened: 0, keeps_answered }
    }

    /// The guest of an image as it was found after a crash: what it sees is durable.
    ///
    /// # Errors
    /// The image cannot be read.
    pub(crate) fn found(&self, image: &Image) -> Result<Self, ImageError> {
        let size = image.image_size() / SECTOR;
        let mut sectors = BTreeMap::new();
        for sector in self.watched.iter().take_while(|sector| **sector < size) {
            let mut first = [0; 8];
            image.read_at(&mut first, GuestOffset::new(sector * SECTOR))?;
            let tag = Tag::try_from(u64::from_le_bytes(first) >> 32).expect("32 bits");
            sectors.insert(*sector, vec![tag]);
        }
        let (sizes, names) = (vec![size], vec![image.backing_name()]);
        Ok(Self { sectors, sizes, names, happened: 0, ..self.clone() })
    }

    /// The same guest, where only processes die.
    pub(crate) fn outliving(&self) -> Self {
        Self { keeps_answered: true, ..self.clone() }
    }

    /// How many events have happened.
    pub(crate) fn happened(&self) -> usize {
        self.happened
    }

    /// The sectors that are looked at.
    pub(crate) fn watched(&self) -> &[u64] {
        &self.watched
    }

    /// Lets all events happen that came before a crash.
    pub(crate) fn advance(&mut self, events: &[Event], crash: u64) {
        while let Some(event) = events.get(self.happened).filter(|event| event.order < crash) {
            self.happens(&event.what);
            self.happened += 1;
        }
    }

    pub(crate) fn allows(&self, sector: u64, found: &[u8]) -> bool {
        let (chunks, _) = found.as_chunks::<8>();
        let first = u64::from_le_bytes(chunks[0]);
        let allowed = self.sectors.get(&sector);
        allowed.is_some_and(|tags| tags.iter().any(|tag| word(*tag, sector) == first))
            && chunks.iter().all(|chunk| u64::from_le_bytes(*chunk) == first)
    }

    /// What a sector may hold, for people.
    pub(crate) fn allowed(&self, sector: u64) -> String {
        let words = self.sectors.get(&sector).into_iter().flatten().map(|tag| word(*tag, sector));
        words.map(|word| format!("{word:#x}")).collect::<Vec<_>>().join(" or ")
    }

    fn happens(&mut self, what: &What) {
        match what {
            What::Asked { first, count, tag } => {
                for (_, tags) in self.sectors.range_mut(*first..first + count) {
                    tags.push(*tag);
                }
            }
            What::Acknowledged { under_way } => self.acknowledge(under_way),
            What::Answered { under_way } if self.keeps_answered => self.acknowledge(under_way),
            What::Answered { .. } => {}
            What::ResizeAsked(size) => self.resize_asked(*size),
            What::Resized(size) => {
                self.sizes = vec![*size];
                self.sectors.retain(|sector, _| sector < size);
            }
            What::Renaming(name) => self.names.push(name.clone()),
            What::Renamed => {
                self.names.drain(..self.names.len() - 1);
            }
        }
    }

    fn acknowledge(&mut self, under_way: &[Tag]) {
        for tags in self.sectors.values_mut() {
            let covered = tags.iter().rposition(|tag| !under_way.contains(tag));
            tags.drain(..covered.unwrap_or_default());
        }
    }

    fn resize_asked(&mut self, size: u64) {
        let old = self.sizes[self.sizes.len() - 1];
        for sector in self.watched.iter().filter(|sector| (old..size).contains(sector)) {
            self.sectors.insert(*sector, vec![ZERO]);
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
