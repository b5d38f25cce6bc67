//! The result of a check as data: counters that are exact and a list of findings that is bounded.

use qed_spec::HostOffset;

use crate::finding::{Class, Finding, FindingKind, Place};

/// What a check or a repair found out about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Whether NEED_CHECK is set: the last writer did not close the image.
    pub dirty: bool,
    /// What the tables map.
    pub statistics: Statistics,
    /// How often each rule is broken, exact however many findings are kept.
    pub counts: Counts,
    /// The findings in order (the L1 table, the L2 tables by guest offset, the file), as many as
    /// the limit allows.
    pub findings: Vec<Finding>,
    /// What a repair mended; empty after a check.
    pub repaired: Repaired,
}

/// What a repair mended, as it was before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// How often each rule was broken and no longer is.
    pub counts: Counts,
    /// The findings that are gone, as many as the limit allowed to keep.
    pub findings: Vec<Finding>,
    /// Clusters that no table names and that were kept, since a broken entry may have led to them.
    /// A repair of leaks gives them back; where they are free space the next writer uses them.
    pub kept_clusters: u64,
    /// Bytes of leaks that the storage no longer keeps space for. They are leaks still.
    pub punched_bytes: u64,
}

/// Numbers about what the tables map, as `qemu-img check` prints them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Clusters of the virtual disk.
    pub total_clusters: u64,
    /// L2 entries that name a cluster, rightly or not.
    pub allocated_clusters: u64,
    /// Allocated clusters that do not follow the one before them in their L2 table on the host.
    pub fragmented_clusters: u64,
    /// Always 0: the classic format has no compressed clusters.
    pub compressed_clusters: u64,
    /// L2 entries that say "reads as zeros".
    pub zero_clusters: u64,
    /// Length of the file in bytes.
    pub file_len_bytes: u64,
    /// End of the last cluster that is in use.
    pub image_end: HostOffset,
    /// End of the space that was handed out: of the file, or on a block device as it is recorded, if that
    /// is behind the last cluster in use.
    pub space_end: HostOffset,
    /// Clusters below `space_end` that nothing names and the next writer uses. `None` in a classic
    /// image, where they are leaks.
    pub free_clusters: Option<u64>,
}

/// How often each kind was found; clusters for leaks, entries for all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts([u64; FindingKind::ALL.len()]);

impl Report {
    /// Whether there is neither a corruption nor a leak. Notes do not matter.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corruptions() == 0 && self.leaks() == 0
    }

    /// Entries that break a rule.
    #[must_use]
    pub fn corruptions(&self) -> u64 {
        self.counts.of_class(Class::Corruption)
    }

    /// Clusters that are wasted, entries past the end of the virtual disk among them.
    #[must_use]
    pub fn leaks(&self) -> u64 {
        self.counts.of_class(Class::Leak)
    }

    /// Whole clusters of the image that nothing names: leaks, or free space.
    #[must_use]
    pub fn unnamed_clusters(&self) -> u64 {
        let leaks =
            self.counts.of(FindingKind::LeakAtEnd) + self.counts.of(FindingKind::LeakInside);
        leaks + self.statistics.free_clusters.unwrap_or(0)
    }
}

impl Counts {
    /// How often `kind` was found.
    #[must_use]
    pub fn of(&self, kind: FindingKind) -> u64 {
        slot(kind).map_or(0, |slot| self.0[slot])
    }

    /// The sum over the kinds of one class.
    #[must_use]
    pub fn of_class(&self, class: Class) -> u64 {
        self.iter().filter(|(kind, _)| kind.class() == class).map(|(_, count)| count).sum()
    }

    /// Every kind with its count, in the order of the numbers.
    pub fn iter(&self) -> impl Iterator<Item = (FindingKind, u64)> + '_ {
        FindingKind::ALL.iter().copied().zip(self.0)
    }

    /// What was counted here and is no longer counted in `after`, of the kinds that `can_go`.
    #[must_use]
    pub(crate) fn gone_in(&self, after: &Self, can_go: impl Fn(FindingKind) -> bool) -> Self {
        let gone = |i: usize| self.0[i].saturating_sub(after.0[i]);
        Self(std::array::from_fn(|i| if can_go(FindingKind::ALL[i]) { gone(i) } else { 0 }))
    }

    fn add(&mut self, kind: FindingKind, count: u64) {
        if let Some(slot) = slot(kind) {
            self.0[slot] = self.0[slot].saturating_add(count);
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self([0; FindingKind::ALL.len()])
    }
}

fn slot(kind: FindingKind) -> Option<usize> {
    FindingKind::ALL.iter().position(|other| *other == kind)
}

/// Collects findings: counts all, keeps the first `limit`.
#[derive(Debug)]
pub(crate) struct FindingLog {
    pub(crate) counts: Counts,
    pub(crate) findings: Vec<Finding>,
    /// Findings that are kept and need their `first` named, each with the cluster in question.
    pub(crate) unnamed: Vec<(usize, u64)>,
    limit: usize,
}

impl FindingLog {
    pub(crate) fn new(limit: usize) -> Self {
        Self { counts: Counts::default(), findings: Vec::new(), unnamed: Vec::new(), limit }
    }

    /// Counts the finding and keeps it while there is room.
    pub(crate) fn add(&mut self, finding: Finding) {
        let weight = match finding.place {
            Place::Clusters { count, .. } => count,
            _ => 1,
        };
        self.counts.add(finding.kind, weight);
        if self.findings.len() < self.limit {
            self.findings.push(finding);
        }
    }

    /// As [`FindingLog::add`], for a finding about `cluster` that somebody else claimed first.
    pub(crate) fn add_claimed(&mut self, finding: Finding, cluster: u64) {
        if self.findings.len() < self.limit {
            self.unnamed.push((self.findings.len(), cluster));
        }
        self.add(finding);
    }
}
