//! What a sweep does to free space: it holds what it must not find, and adds what it found.

use qed_spec::HostCluster;

use super::{FreeSpace, Origin, State, Verdict};
use crate::error::CorruptTable;
use crate::options::DiscardMode;
use crate::space::host_set::HostSet;
use crate::sync::Ordering;

impl FreeSpace {
    /// A sweep begins: holds all that no table names now, and `kept` that is set aside. What lost its name
    /// and has no other: all since the image was opened, if this is the first sweep, or what the first
    /// could not say that of; and whether it is the first.
    // spec: QED-FREE-07, QED-FREE-10
    pub(crate) fn begin_sweep(&self, kept: impl Iterator<Item = HostCluster>) -> (HostSet, bool) {
        self.change(|state| {
            let mut held = HostSet::default();
            let State { returned, swept, let_go, away, .. } = state;
            [returned, swept, let_go, away].into_iter().for_each(|set| held.absorb(set));
            kept.for_each(|cluster| held.insert(cluster.get()..cluster.get() + 1));
            state.held = Some(held);
            let is_first = state.verdict == Verdict::Unknown;
            let mut unnamed = HostSet::default();
            if is_first {
                state.late = HostSet::default();
                unnamed.absorb(&state.away);
                unnamed.absorb(&state.let_go);
            } else {
                unnamed.absorb(&state.late);
            }
            (unnamed, is_first)
        })
    }

    /// Whether the sweep that runs holds a cluster.
    pub(crate) fn holds(&self, cluster: u64) -> bool {
        self.state().held.as_ref().is_some_and(|held| held.contains(cluster))
    }

    /// A sweep has ended: adds what is neither held nor among the `named`, a word of 64 clusters each.
    /// Whether another is to follow, for what was let go while the first ran.
    pub(crate) fn end_sweep(
        &self,
        named: impl Iterator<Item = u64>,
        is_first: bool,
        mode: DiscardMode,
    ) -> bool {
        self.is_judged.store(true, Ordering::Relaxed);
        self.change(|state| {
            state.verdict = Verdict::Sound;
            if !is_first {
                state.late = HostSet::default();
            }
            // Of a first sweep before this one that did not end; those that are late now stay doubtful.
            let doubtful = std::mem::take(&mut state.doubtful);
            state.free(Origin::LetGo, doubtful, mode);
            let Some(held) = state.held.take() else { return false };
            let mut found = HostSet::default();
            for (word, named) in (0..).zip(named) {
                if named != u64::MAX {
                    found.insert_word(word, !(named | held.word(word)));
                }
            }
            if mode == DiscardMode::PassDown {
                state.away.absorb(&found);
            }
            state.free(Origin::Swept, found, mode);
            !state.late.is_empty()
        })
    }

    /// A sweep has ended with a finding, or without one where `finding` is none: nothing is known.
    pub(crate) fn abandon_sweep(&self, finding: Option<CorruptTable>) {
        self.change(|state| {
            state.held = None;
            if let Some(finding) = finding {
                state.verdict = Verdict::Broken(finding);
            }
        });
        if finding.is_some() {
            self.is_judged.store(true, Ordering::Relaxed);
        }
    }
}
