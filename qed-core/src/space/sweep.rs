//! A sweep of the tables for clusters that nothing names: what was named so far, as the walk tells it.
//!
//! Knows no table: the walk is the image's. What a sweep must not find is held in [`FreeSpace`].

use std::ops::Range;
use std::time::Duration;

use qed_layout::{Roots, words};
use qed_spec::Geometry;

use crate::space::free::FreeSpace;
use crate::space::guards::Moment;
use crate::space::host_set::HostSet;

/// How long a step of a sweep takes beside the requests of the guest, and how long it leaves them alone.
pub(crate) const STEP: Duration = Duration::from_millis(2);
pub(crate) const PAUSE: Duration = Duration::from_millis(8);

/// Clusters that a sweep has memory for, 32 MiB for what is named and as much for what is free: an image
/// that ends behind them, 16 TiB with clusters of 64 KiB, is not swept, and none of its space used again.
/// A hostile one in a sparse file may claim any length.
const MAX_CLUSTERS: u64 = 1 << 28;

/// A sweep that runs.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// Nothing is read before requests in flight at this moment have ended: the space that they had
    /// taken is named then, or was given back.
    pub(crate) began: Moment,
    /// Clusters that had been handed out.
    end: u64,
    /// Those that are named, a bit each.
    named: Vec<u64>,
    /// Nothing that lost its name has got another since the image was opened.
    pub(crate) is_first: bool,
    /// What lost its only name before and has no other.
    unnamed: HostSet,
    /// Changes of tables from before it began are durable.
    pub(crate) is_flushed: bool,
    /// Tells it from those before it.
    pub(crate) number: u64,
    /// How far the tables were read.
    pub(crate) place: WalkPlace,
}

/// A place in the tables: a slot of the L1 table, and one of the L2 table that it names.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct WalkPlace {
    pub(crate) l1: u64,
    pub(crate) slot: u64,
}

impl Sweep {
    /// Of an image with `end` clusters; none where there is no memory for them. It is told what is
    /// `unnamed`: an entry that names it is one more name. Whether it is the first one of an open image.
    // spec: QED-FREE-10
    pub(crate) fn new(
        end: u64,
        began: Moment,
        roots: &Roots,
        geometry: Geometry,
        (unnamed, is_first): (HostSet, bool),
        number: u64,
    ) -> Option<Self> {
        if end > MAX_CLUSTERS {
            return None;
        }
        let words = usize::try_from(end.div_ceil(64)).ok()?;
        let place = WalkPlace::default();
        let named = vec![0; words];
        let is_flushed = false;
        let mut sweep = Self { began, end, named, is_first, unnamed, is_flushed, number, place };
        let runs: Vec<_> = sweep.unnamed.runs().collect();
        for run in &runs {
            sweep.insert(run, |_| false);
        }
        for (_, root) in roots.all() {
            let first = root.start >> geometry.cluster_bits();
            let run = first..geometry.clusters_for(root.end).get();
            sweep.insert(&run, |_| false);
        }
        Some(sweep)
    }

    /// Takes note of clusters that one entry or several name; the first of them that is named twice.
    ///
    /// What is held may have got another name since the sweep read the one that it had; not so before a
    /// sweep has ended, since nothing is used again until then.
    // spec: QED-FREE-07, QED-FREE-10
    pub(crate) fn name(&mut self, run: &Range<u64>, free: &FreeSpace) -> Option<u64> {
        let unnamed = std::mem::take(&mut self.unnamed);
        let is_first = self.is_first;
        let counts = |cluster| is_first || unnamed.contains(cluster) || !free.holds(cluster);
        let twice = self.insert(run, counts);
        self.unnamed = unnamed;
        twice
    }

    /// The cluster behind the last that is named.
    pub(crate) fn named_end(&self) -> u64 {
        let last = self.named.iter().rposition(|word| *word != 0);
        last.map_or(0, |last| 64 * (last as u64 + 1) - u64::from(self.named[last].leading_zeros()))
    }

    /// Clusters that it looks at.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Looks at clusters below `end` alone.
    pub(crate) fn shorten(&mut self, end: u64) {
        self.end = self.end.min(end);
        self.named.truncate(usize::try_from(self.end.div_ceil(64)).unwrap_or(usize::MAX));
    }

    /// Those that are named, a word of 64 clusters each; what is behind the end counts as named.
    pub(crate) fn into_words(mut self) -> impl Iterator<Item = u64> {
        if !self.end.is_multiple_of(64)
            && let Some(last) = self.named.last_mut()
        {
            *last |= u64::MAX << (self.end % 64);
        }
        self.named.into_iter()
    }

    /// Inserts clusters below the end: others were handed out since. The first that was a member and
    /// of which `counts` says so.
    fn insert(&mut self, run: &Range<u64>, counts: impl Fn(u64) -> bool) -> Option<u64> {
        let mut twice = None;
        for (word, mask) in words(run.start..run.end.min(self.end)) {
            let bits = &mut self.named[usize::try_from(word).expect("below the end")];
            let both = *bits & mask;
            *bits |= mask;
            if both != 0 && twice.is_none() {
                let members = (0..64).filter(|bit| both >> bit & 1 == 1);
                twice = members.map(|bit| 64 * word + bit).find(|cluster| counts(*cluster));
            }
        }
        twice
    }
}

#[cfg(test)]
mod tests {
    use qed_spec::HostCluster;

    use super::*;
    use crate::space::free::HostRun;
    use crate::space::guards::Drain;

    fn sweep(end: u64) -> Sweep {
        let place = WalkPlace::default();
        let began = Drain::default().moment();
        let (named, unnamed) = (vec![0; 4], HostSet::default());
        Sweep { began, end, named, is_first: false, unnamed, is_flushed: true, number: 0, place }
    }

    // spec-test: QED-FREE-07
    #[test]
    fn what_two_entries_name_is_found_unless_it_is_held() {
        let free = FreeSpace::new();
        let mut sweep = sweep(200);
        free.begin_sweep(std::iter::empty());
        let first = HostCluster::new(70).unwrap();
        free.give_back(HostRun { first, count: 2, fresh: false });
        assert_eq!(sweep.name(&(3..150), &free), None);
        assert_eq!(sweep.name(&(70..72), &free), None, "held");
        sweep.unnamed.insert(71..72);
        assert_eq!(sweep.name(&(70..72), &free), Some(71), "it has no other name");
        sweep.is_first = true;
        assert_eq!(sweep.name(&(70..72), &free), Some(70), "nothing was used again yet");
        (sweep.is_first, sweep.unnamed) = (false, HostSet::default());
        assert_eq!(sweep.name(&(69..73), &free), Some(69));
        assert_eq!(sweep.name(&(70..73), &free), Some(72));
        assert_eq!(sweep.name(&(198..500), &free), None);
        assert_eq!(sweep.name(&(300..500), &free), None, "handed out since");
        assert_eq!(sweep.named_end(), 200);
        let unnamed = sweep.into_words().map(|word| u64::from(word.count_zeros())).sum::<u64>();
        assert_eq!(unnamed, 3 + 198 - 150);
    }
}
