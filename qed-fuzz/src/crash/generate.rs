//! Workloads made from seeds: what kind of image, what kind of steps, and the steps.

use std::fmt::{self, Display, Formatter};

use qed_core::DiscardMode;

use super::fingerprint::mix;
use super::workload::{Beside, CRASH_CLUSTER, Mode, Step, Workload};
use crate::random::Random;
use crate::size::usize_of;

/// What lies under an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    /// No backing file.
    None,
    /// A backing file that ends before the disk.
    Shorter,
    /// One that is longer.
    Longer,
}

/// What the steps of a workload are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Allocating writes and flushes.
    Allocate,
    /// Writes all over the tables, with few flushes.
    Scatter,
    /// Writes to few clusters again and again.
    Overwrite,
    /// Writers that take turns, and flushes beside them.
    Together,
    /// Zeros.
    Zeros,
    /// Space that the guest gives up.
    Discard,
    /// The same after a sweep, so that it is used again, and closing and opening.
    Reuse,
    /// Compactions that end anywhere.
    Compact,
    /// Writes that were given up.
    Abandon,
    /// Other sizes of the disk.
    Resize,
    /// Other backing file names; without a backing file, the timer.
    Names,
    /// Closing and opening, also after a foreign program.
    Reopen,
    /// Work after a crash.
    Crash,
    /// Work after the death of a process.
    Die,
    /// All of it but crashes.
    Mixed,
}

/// A workload and where it comes from.
#[derive(Debug, Clone)]
pub struct Seeded {
    /// What lies under the image.
    pub backing: Backing,
    /// What the steps are about.
    pub family: Family,
    /// The image and the steps.
    pub workload: Workload,
}

/// Sectors that an L2 table of the images maps.
const TABLE: u64 = 1024 * CRASH_CLUSTER;

/// Clusters that are written to: at the start of the disk, and where a sector of the L2 table, a
/// slice of it and the table end.
const PLACES: [(u64, u64); 4] = [(0, 5), (62, 4), (511, 2), (1021, 6)];

/// Steps of [`Family::Mixed`].
const MIXED: &[fn(&mut Maker) -> Step] = &[
    Maker::write,
    Maker::write,
    Maker::write_long,
    Maker::together,
    Maker::zero,
    Maker::unmap,
    Maker::discard,
    Maker::beside,
    Maker::sweep,
    Maker::compact,
    Maker::abandon,
    Maker::resize,
    Maker::name,
    Maker::reopen,
    Maker::flush,
    Maker::flush,
];

impl Backing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Shorter, Self::Longer];

    fn sectors(self, size: u64, random: &mut Random) -> u64 {
        match self {
            Self::None => 0,
            Self::Shorter => size - 1 - random.below(2 * CRASH_CLUSTER),
            Self::Longer => size + random.below(3 * CRASH_CLUSTER),
        }
    }
}

impl Display for Backing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Shorter => "shorter",
            Self::Longer => "longer",
        })
    }
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Allocate,
        Self::Scatter,
        Self::Overwrite,
        Self::Together,
        Self::Zeros,
        Self::Discard,
        Self::Reuse,
        Self::Compact,
        Self::Abandon,
        Self::Resize,
        Self::Names,
        Self::Reopen,
        Self::Crash,
        Self::Die,
        Self::Mixed,
    ];

    /// What has to be so before its steps mean anything, on a disk of so many sectors.
    fn first_steps(self, size: u64) -> Vec<Step> {
        match self {
            Self::Reuse => vec![Step::Sweep],
            // The last table lies behind data that is gone.
            Self::Compact => vec![
                Step::Write { first: 0, count: 5 * CRASH_CLUSTER },
                Step::Write { first: size - 1, count: 1 },
                Step::Flush,
                Step::Unmap { first: CRASH_CLUSTER, count: 4 * CRASH_CLUSTER },
            ],
            _ => Vec::new(),
        }
    }

    fn steps(self) -> &'static [fn(&mut Maker) -> Step] {
        use Maker as M;
        match self {
            Self::Allocate => &[M::write, M::write, M::write_long, M::flush],
            Self::Scatter => &[M::scatter, M::scatter, M::scatter, M::scatter, M::write, M::flush],
            Self::Overwrite => &[M::overwrite, M::overwrite, M::flush],
            Self::Together => &[M::together, M::together, M::write, M::flush],
            Self::Zeros => &[M::write, M::zero, M::zero, M::flush],
            Self::Discard => {
                &[M::write, M::write_long, M::discard, M::unmap, M::flush, M::flush, M::sweep]
            }
            Self::Reuse => &[
                M::write,
                M::write,
                M::write_long,
                M::together,
                M::unmap,
                M::discard,
                M::beside,
                M::flush,
                M::flush,
                M::sweep,
                M::reopen,
            ],
            Self::Compact => &[
                M::write,
                M::scatter,
                M::write_long,
                M::unmap,
                M::flush,
                M::compact,
                M::compact,
                M::reopen,
            ],
            Self::Abandon => &[M::write, M::write, M::abandon, M::flush],
            Self::Resize => &[M::write, M::write, M::resize, M::unmap, M::flush, M::sweep],
            Self::Names => &[M::write, M::name, M::flush],
            Self::Reopen => &[M::write, M::write, M::flush, M::reopen],
            Self::Crash => &[
                M::write,
                M::scatter,
                M::write_long,
                M::together,
                M::unmap,
                M::flush,
                M::flush,
                M::sweep,
                M::crash,
            ],
            Self::Die => &[
                M::write,
                M::scatter,
                M::write_long,
                M::together,
                M::unmap,
                M::zero,
                M::flush,
                M::sweep,
                M::die,
                M::die,
            ],
            Self::Mixed => MIXED,
        }
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_lowercase())
    }
}

impl Seeded {
    /// The workload of a seed. Seeds that follow each other go through modes and backing files first.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mode = Mode::ALL[usize_of(seed % Mode::ALL.len() as u64)];
        let rest = seed / Mode::ALL.len() as u64;
        let backing = Backing::ALL[usize_of(rest % Backing::ALL.len() as u64)];
        let rest = rest / Backing::ALL.len() as u64;
        let family = Family::ALL[usize_of(rest % Family::ALL.len() as u64)];
        let mut random = Random::new(seed);
        let size = match random.below(3) {
            // A table moves where there are two.
            0 if family != Family::Compact => 5 * CRASH_CLUSTER + 3,
            _ => TABLE + 2 * CRASH_CLUSTER + 3,
        };
        let under = backing.sectors(size, &mut random);
        let cached = random.below(3) > 0;
        let discard = [DiscardMode::Reuse, DiscardMode::PassDown][usize_of(random.below(2))];
        // Space is used again after a few steps only.
        let least = if matches!(family, Family::Discard | Family::Reuse | Family::Compact) {
            12
        } else {
            6
        };
        let count = least + random.below(8);
        let mut maker = Maker { random, size, has_backing: under > 0 };
        let kinds = family.steps();
        let steps = (0..count).map(|_| {
            let kind = kinds[usize_of(maker.below(kinds.len() as u64))];
            kind(&mut maker)
        });
        let steps = family.first_steps(size).into_iter().chain(steps).collect();
        let has_log = family == Family::Die || mix(seed).is_multiple_of(2);
        let workload = Workload { mode, size, backing: under, cached, discard, has_log, steps };
        Self { backing, family, workload }
    }
}

/// Makes one step after the other.
struct Maker {
    random: Random,
    /// Sectors of the disk at that step.
    size: u64,
    has_backing: bool,
}

impl Maker {
    fn below(&mut self, end: u64) -> u64 {
        self.random.below(end)
    }

    /// A cluster that is written to, of a disk of this size.
    fn cluster(&mut self) -> u64 {
        let clusters = self.size.div_ceil(CRASH_CLUSTER);
        let inside = PLACES.iter().filter(|(first, _)| *first < clusters).count();
        let (first, count) = PLACES[usize_of(self.below(inside as u64))];
        first + self.below(count.min(clusters - first))
    }

    fn first(&mut self) -> u64 {
        let first = self.cluster() * CRASH_CLUSTER;
        let first = if self.below(2) == 0 { first } else { first + self.below(CRASH_CLUSTER) };
        first.min(self.size - 1)
    }

    fn range(&mut self, longest: u64) -> (u64, u64) {
        let first = self.first();
        let count = 1 + self.below(longest);
        (first, count.min(self.size - first))
    }

    fn write(&mut self) -> Step {
        let (first, count) = self.range(2);
        Step::Write { first, count }
    }

    fn write_long(&mut self) -> Step {
        let (first, count) = self.range(2 * CRASH_CLUSTER);
        Step::Write { first, count }
    }

    fn scatter(&mut self) -> Step {
        let first = self.below(self.size);
        Step::Write { first, count: 1 }
    }

    fn overwrite(&mut self) -> Step {
        let first = self.below(3 * CRASH_CLUSTER);
        Step::Write { first, count: 1 + self.below(2) }
    }

    fn together(&mut self) -> Step {
        let count = 2 + self.below(3);
        let writes = (0..count).map(|_| self.range(CRASH_CLUSTER + 2)).collect();
        let discards = (0..self.below(3)).map(|_| self.range(3 * CRASH_CLUSTER)).collect();
        Step::Together { writes, discards, order: self.random.next_u64() }
    }

    fn zero(&mut self) -> Step {
        let (first, count) = self.range(3 * CRASH_CLUSTER);
        Step::Zero { first, count }
    }

    fn unmap(&mut self) -> Step {
        let (first, count) = self.range(3 * CRASH_CLUSTER);
        Step::Unmap { first, count }
    }

    fn discard(&mut self) -> Step {
        let (first, count) = self.range(4 * CRASH_CLUSTER);
        Step::Discard { first, count }
    }

    fn sweep(&mut self) -> Step {
        if self.below(3) == 0 { Step::Maintain } else { Step::Sweep }
    }

    fn beside(&mut self) -> Step {
        let (first, count) = self.range(CRASH_CLUSTER + 2);
        let what = if self.below(2) == 0 { Beside::Flush } else { Beside::Punch };
        Step::WriteBeside { what, first, count }
    }

    fn compact(&mut self) -> Step {
        // Tables move in the last steps of it.
        let (steps, defragment) = (1 + self.below(60), self.below(3) == 0);
        let writes = (0..self.below(6)).map(|_| self.range(2)).collect();
        Step::Compact { steps, defragment, writes }
    }

    fn abandon(&mut self) -> Step {
        Step::Abandon { first: self.first() }
    }

    fn resize(&mut self) -> Step {
        let places = [1, 3, 6, 63, 66, 512, 1024, 1026];
        let cluster = places[usize_of(self.below(places.len() as u64))];
        self.size = cluster * CRASH_CLUSTER - self.below(CRASH_CLUSTER);
        Step::Resize(self.size)
    }

    fn name(&mut self) -> Step {
        if !self.has_backing {
            return Step::Maintain;
        }
        let len = 1 + self.below(900);
        let letter = b'a' + [0, 1, 2][usize_of(self.below(3))];
        Step::SetBacking(Some(vec![letter; usize_of(len)]))
    }

    fn reopen(&mut self) -> Step {
        if self.below(3) == 0 { Step::Foreign } else { Step::Reopen }
    }

    fn crash(&mut self) -> Step {
        Step::Crash(self.random.next_u64())
    }

    fn die(&mut self) -> Step {
        Step::Die
    }

    fn flush(&mut self) -> Step {
        if self.below(3) == 0 { Step::Maintain } else { Step::Flush }
    }
}
