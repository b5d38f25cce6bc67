//! What is done to an image before it crashes, as a value: printed, shortened, made from a seed.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use qed_core::{
    BackingError, DiscardMode, GivenBacking, GuestExtent, GuestExtentKind, Identity, Layout,
    VirtualDisk,
};
use qed_spec::{AutoclearFeatures, Epoch, Geometry, ImageUuid};

use super::guest::{BACKING, Guest, word};
use crate::size::usize_of;
use crate::sparse::SECTOR;

/// Sectors of a cluster of the images that crash.
pub const CRASH_CLUSTER: u64 = 8;

/// The guest cluster that a foreign program writes, if that has no data.
pub(crate) const FOREIGN_CLUSTER: u64 = 1;

/// Ranges longer than this many clusters are looked at where they begin and end.
const WATCHED_WHOLE: u64 = 4;

/// How an image is kept consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// No extension: NEED_CHECK alone.
    Classic,
    /// The dirty bitmap.
    Compat,
    /// The journal, in the smallest ring: it wraps within a few flushes.
    Journal,
}

/// One step; places and lengths are in sectors.
#[derive(Debug, Clone)]
pub enum Step {
    /// Writes new content.
    Write {
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
    /// Writes zeros.
    Zero {
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
    /// Writes zeros, for which whole clusters give up their space.
    Unmap {
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
    /// Says that nobody wants the whole clusters of a range any more.
    Discard {
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
    /// A sweep, and what was let go is free.
    Sweep,
    /// A flush, and a write while a part of it is on its way to the disk.
    WriteBeside {
        /// The part.
        what: Beside,
        /// First sector.
        first: u64,
        /// Sectors.
        count: u64,
    },
    /// A part of a compaction, which goes on from where another ended.
    Compact {
        /// Steps of it.
        steps: u64,
        /// Whether data is laid out anew.
        defragment: bool,
        /// First sector and count of the writes between the steps.
        writes: Vec<(u64, u64)>,
    },
    /// A flush of the guest.
    Flush,
    /// Another size of the disk.
    Resize(u64),
    /// Prepares an allocating write, does a part of its I/O and gives it up.
    Abandon {
        /// The sector.
        first: u64,
    },
    /// Writers that take turns, discards between their steps, and flushes of the guest between these and
    /// beside them.
    Together {
        /// First sector and count of each write.
        writes: Vec<(u64, u64)>,
        /// First sector and count of each discard.
        discards: Vec<(u64, u64)>,
        /// Draws whose turn it is.
        order: u64,
    },
    /// Another backing file name, or none.
    SetBacking(Option<Vec<u8>>),
    /// The timer of an idle image goes off.
    Maintain,
    /// Closes and opens.
    Reopen,
    /// A crash, of which a state is left that the number draws; the image is opened again.
    Crash(u64),
    /// The process dies, and the next one opens the image.
    Die,
    /// Closes, and opens after a program has opened it that knows no extensions.
    Foreign,
}

/// What a write comes beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// A flush of the storage.
    Flush,
    /// A punch; the write is flushed, too, before that arrives.
    Punch,
}

/// An image and what is done to it.
#[derive(Debug, Clone)]
pub struct Workload {
    /// How it is kept consistent.
    pub mode: Mode,
    /// Sectors of the disk.
    pub size: u64,
    /// Sectors of the backing file; 0 for none.
    pub backing: u64,
    /// Whether tables stay in memory until a flush, or go to the file as soon as they can.
    pub cached: bool,
    /// What becomes of space that is given up.
    pub discard: DiscardMode,
    /// Whether the image names its owner, and a pending log is kept.
    pub has_log: bool,
    /// What is done.
    pub steps: Vec<Step>,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Classic, Self::Compat, Self::Journal];

    /// The layout of new images, with an identity that is the same each time.
    #[must_use]
    pub fn layout(self) -> Layout {
        let identity = Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(7) };
        match self {
            Self::Classic => Layout::Classic,
            Self::Compat => Layout::Compat(identity),
            Self::Journal => Layout::Journal { identity, ring_len_bytes: 32 << 10 },
        }
    }
}

impl Mode {
    /// The autoclear bit that an image of this mode has while it is kept up.
    pub(crate) fn kept_bit(self) -> AutoclearFeatures {
        match self {
            Self::Classic => AutoclearFeatures::empty(),
            Self::Compat => AutoclearFeatures::TABLE_DIRTY,
            Self::Journal => AutoclearFeatures::JOURNAL,
        }
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Classic => "classic",
            Self::Compat => "compat",
            Self::Journal => "journal",
        })
    }
}

impl Workload {
    /// The shape of the images: tables of two clusters, each of two slices.
    ///
    /// # Panics
    /// Never: the shape is legal.
    #[must_use]
    pub fn geometry() -> Geometry {
        Geometry::new(4096, 2).expect("a legal shape")
    }

    /// What lies under the image.
    #[must_use]
    pub fn gate(&self) -> GivenBacking {
        let under = (self.backing > 0).then(|| Arc::new(Under { sectors: self.backing }) as _);
        GivenBacking(under)
    }

    /// The name of the backing file at first.
    #[must_use]
    pub fn name(&self) -> Option<Vec<u8>> {
        (self.backing > 0).then(|| b"base".to_vec())
    }

    /// What the guest knows at first.
    pub(crate) fn guest(&self) -> Guest {
        Guest::new(self.watched(), self.size, self.backing, self.name())
    }

    /// The sectors of the clusters that a step may change, and of their neighbours.
    #[must_use]
    pub fn watched(&self) -> Vec<u64> {
        let mut clusters = BTreeSet::from([0]);
        let mut watch = |first: u64, count: u64| {
            let (first, last) = (first / CRASH_CLUSTER, (first + count) / CRASH_CLUSTER);
            let is_whole = last - first <= WATCHED_WHOLE;
            clusters.extend(first.saturating_sub(1)..=if is_whole { last } else { first });
            clusters.extend(last.saturating_sub(1)..=last + 1);
        };
        watch(self.size, 0);
        watch(self.backing, 0);
        for step in &self.steps {
            match step {
                Step::Write { first, count }
                | Step::Zero { first, count }
                | Step::Unmap { first, count }
                | Step::Discard { first, count }
                | Step::WriteBeside { first, count, .. } => watch(*first, *count),
                Step::Resize(size) => watch(*size, 0),
                Step::Abandon { first } => watch(*first, 1),
                Step::Together { writes, discards, .. } => {
                    let all = writes.iter().chain(discards);
                    all.for_each(|(first, count)| watch(*first, *count));
                }
                Step::Foreign => watch(FOREIGN_CLUSTER * CRASH_CLUSTER, CRASH_CLUSTER),
                Step::Compact { writes, .. } => {
                    writes.iter().for_each(|(first, count)| watch(*first, *count));
                }
                Step::Flush
                | Step::Sweep
                | Step::SetBacking(_)
                | Step::Maintain
                | Step::Reopen
                | Step::Die
                | Step::Crash(_) => {}
            }
        }
        let sectors = |cluster| cluster * CRASH_CLUSTER..(cluster + 1) * CRASH_CLUSTER;
        clusters.into_iter().flat_map(sectors).collect()
    }
}

/// A backing file with a content that is computed.
#[derive(Debug)]
struct Under {
    sectors: u64,
}

impl VirtualDisk for Under {
    fn len(&self) -> u64 {
        self.sectors * SECTOR
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let word = word(BACKING, at / SECTOR).to_le_bytes();
            let (part, after) = rest.split_at_mut(rest.len().min(usize_of(SECTOR - at % SECTOR)));
            for (place, byte) in (at % 8..).zip(&mut *part) {
                *byte = word[usize_of(place % 8)];
            }
            at += part.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let len = (self.len() - offset).min(max_len);
        Ok(GuestExtent { len, depth: 0, kind: GuestExtentKind::Data { host_offset: offset } })
    }
}
