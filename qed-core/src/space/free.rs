//! Which clusters of the image no table names, and how near each is to being given out again: one lock,
//! so that a cluster is in one state at any time.
//!
//! `returned` was handed out and never named. What tables named is *let go*, lies in *limbo* until a flush
//! has made that durable, waits for the requests that may have found it, and is *free* then; a sweep adds
//! what it found. Knows no tables and no order of a flush: docs/write-ordering.md has them.

#[path = "free/sweeps.rs"]
mod sweeps;

use std::collections::VecDeque;
use std::ops::Range;

use qed_spec::HostCluster;

use crate::error::CorruptTable;
use crate::options::DiscardMode;
use crate::space::guards::{Drain, Moment};
use crate::space::host_set::HostSet;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, PoisonError};

/// The clusters that no table names.
#[derive(Debug)]
pub(crate) struct FreeSpace {
    state: Mutex<State>,
    /// Whether there is anything to take, to be asked without the lock.
    any: AtomicBool,
    /// Whether anything lies in limbo.
    any_in_limbo: AtomicBool,
    /// Whether a sweep has said yes or no.
    is_judged: AtomicBool,
}

/// Consecutive clusters that belong to the caller and are named by nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostRun {
    pub(crate) first: HostCluster,
    pub(crate) count: u64,
    /// Never written since the file last grew over it: reads as zeros even after a crash, so its
    /// data need not be durable before the entry that names it, and needs no zero fill.
    pub(crate) fresh: bool,
}

/// Where free space comes from: tables take none that the session let go of.
// spec: QED-FREE-06
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A sweep found it.
    Swept,
    /// This session let go of it.
    LetGo,
}

#[derive(Debug, Default)]
struct State {
    /// Handed out, never named and given back. It may hold bytes.
    returned: HostSet,
    /// Given out again once a sweep has found the tables sound.
    swept: HostSet,
    let_go: HostSet,
    /// Free as soon as they are punched.
    unpunched: VecDeque<(Origin, HostSet)>,
    /// All that was named and is not free yet.
    away: HostSet,
    /// Of that what no flush has taken.
    limbo: HostSet,
    /// Of that what is durably named by nothing, and the moment when it was.
    waiting: VecDeque<(Moment, HostSet)>,
    /// While a sweep runs: what it must not find.
    held: Option<HostSet>,
    /// What was let go while the first sweep ran, which may have read one name of it and not another: it
    /// waits for a second sweep.
    late: HostSet,
    /// Of that what could be free otherwise.
    doubtful: HostSet,
    verdict: Verdict,
}

/// What a sweep says of the tables.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None has ended since the image was opened.
    #[default]
    Unknown,
    /// No cluster is named twice, and none that must not be: space may be used again.
    Sound,
    /// What the first finding was. Nothing is used again.
    Broken(CorruptTable),
}

impl FreeSpace {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            any: AtomicBool::new(false),
            any_in_limbo: AtomicBool::new(false),
            is_judged: AtomicBool::new(false),
        }
    }

    /// Takes up to `count` consecutive clusters: the lowest that are free, or else one that was given
    /// back. Its bytes are anything.
    // spec: QED-FREE-05, QED-FREE-10
    pub(crate) fn take(&self, count: u64) -> Option<HostRun> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.change(|state| {
            let found =
                if state.verdict == Verdict::Sound { state.lowest().take(count) } else { None };
            found.or_else(|| state.returned.take(1)).map(used)
        })
    }

    /// As [`FreeSpace::take`], of clusters below number `limit`, and none that were given back.
    pub(crate) fn take_below(&self, count: u64, limit: u64) -> Option<HostRun> {
        self.change(|state| {
            let set = state.lowest();
            let count = count.min(limit.saturating_sub(set.first()?));
            if state.verdict == Verdict::Sound && count > 0 {
                state.lowest().take(count).map(used)
            } else {
                None
            }
        })
    }

    /// What the session let go of so far is as good for tables as what a sweep found: no log holds a
    /// record that names it.
    // spec: QED-FREE-06
    pub(crate) fn log_is_empty(&self) {
        self.change(|state| {
            let let_go = std::mem::take(&mut state.let_go);
            state.swept.absorb(&let_go);
        });
    }

    /// Takes `count` consecutive clusters for a table.
    // spec: QED-FREE-06
    pub(crate) fn take_table(&self, count: u64) -> Option<HostRun> {
        self.change(|state| match state.verdict {
            Verdict::Sound => state.swept.take_together(count).map(used),
            Verdict::Unknown | Verdict::Broken(_) => None,
        })
    }

    /// Gives space back that nothing names; it may have been written.
    pub(crate) fn give_back(&self, run: HostRun) {
        let run = run.first.get()..run.first.get() + run.count;
        self.change(|state| {
            state.hold(run.clone());
            state.returned.insert(run);
        });
    }

    /// Whether `untake` took space back as if it had never been handed out; not while a sweep runs, which
    /// has seen where the end was.
    pub(crate) fn unless_sweeping(&self, untake: impl FnOnce() -> bool) -> bool {
        self.change(|state| state.held.is_none() && untake())
    }

    /// Clusters are about to be named no more: before the entries are published.
    // spec: QED-FREE-07
    pub(crate) fn let_go(&self, runs: &[Range<u64>]) {
        self.change(|state| {
            let is_late = state.held.is_some() && state.verdict == Verdict::Unknown;
            for run in runs {
                state.hold(run.clone());
                state.away.insert(run.clone());
                if is_late {
                    state.late.insert(run.clone());
                }
            }
        });
    }

    /// The entries are published, which the next flush makes durable.
    pub(crate) fn is_let_go(&self, runs: &[Range<u64>]) {
        self.change(|state| runs.iter().for_each(|run| state.limbo.insert(run.clone())));
    }

    /// The entries are as they were.
    pub(crate) fn is_kept(&self, runs: &[Range<u64>]) {
        self.change(|state| {
            for run in runs {
                state.away.remove(run.clone());
                state.late.remove(run.clone());
            }
        });
    }

    /// Takes what lies in limbo for a flush, which copies the entries after this.
    pub(crate) fn take_limbo(&self) -> HostSet {
        if !self.any_in_limbo.load(Ordering::Acquire) {
            return HostSet::default();
        }
        self.change(|state| std::mem::take(&mut state.limbo))
    }

    /// The flush did not get to the file.
    pub(crate) fn put_back(&self, clusters: &HostSet) {
        if !clusters.is_empty() {
            self.change(|state| state.limbo.absorb(clusters));
        }
    }

    /// The flush is durable: nothing names the clusters since `moment`.
    // spec: QED-FREE-02
    pub(crate) fn is_durable(&self, clusters: HostSet, moment: Moment) {
        self.change(|state| state.waiting.push_back((moment, clusters)));
    }

    /// Makes those free that no request uses any more.
    // spec: QED-FREE-03
    pub(crate) fn settle(&self, guards: &Drain, mode: DiscardMode) {
        if !self.is_waiting() {
            return;
        }
        self.change(|state| {
            while let Some((moment, _)) = state.waiting.front()
                && guards.has_passed(*moment)
                && let Some((_, clusters)) = state.waiting.pop_front()
            {
                state.free(Origin::LetGo, clusters, mode);
            }
        });
    }

    /// Up to `count` clusters that follow each other, to be punched before they are free. The caller has a
    /// request until they are.
    // spec: QED-FREE-10
    pub(crate) fn to_punch(&self, count: u64) -> Option<(Origin, Range<u64>)> {
        let mut state = self.state();
        while state.verdict == Verdict::Sound
            && let Some((origin, clusters)) = state.unpunched.front_mut()
        {
            match clusters.take(count) {
                Some(run) => return Some((*origin, run)),
                None => drop(state.unpunched.pop_front()),
            }
        }
        None
    }

    /// The punch has returned.
    // spec: QED-FREE-04
    pub(crate) fn is_punched(&self, origin: Origin, run: Range<u64>) {
        let mut clusters = HostSet::default();
        clusters.insert(run);
        self.change(|state| state.is_free(origin, &clusters));
    }

    /// Whether anything is to be punched now.
    pub(crate) fn wants_punch(&self) -> bool {
        let state = self.state();
        state.verdict == Verdict::Sound && !state.unpunched.is_empty()
    }

    /// Whether there is anything to take, or was a moment ago.
    pub(crate) fn has_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Whether clusters wait for requests to end.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Whether something named no more may become free.
    pub(crate) fn is_any_away(&self) -> bool {
        !self.state().away.is_empty()
    }

    /// Whether a sweep has ended since the image was opened.
    pub(crate) fn is_judged(&self) -> bool {
        self.is_judged.load(Ordering::Relaxed)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.state().verdict
    }

    /// Whether a sweep has ended with a finding.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.state().verdict, Verdict::Broken(_))
    }

    /// Clusters that are free or will be.
    pub(crate) fn count(&self) -> u64 {
        let state = self.state();
        state.returned.len() + state.swept.len() + state.let_go.len() + state.away.len()
    }

    /// Free clusters from number `first` on.
    pub(crate) fn count_from(&self, first: u64) -> u64 {
        let state = self.state();
        let sets = [&state.returned, &state.swept, &state.let_go, &state.away];
        let counts = sets.map(|set| {
            set.runs().map(|run| run.end.saturating_sub(run.start.max(first))).sum::<u64>()
        });
        counts.iter().sum()
    }

    /// The first cluster of the free run that ends with `end`, or `end`.
    pub(crate) fn tail_from(&self, end: u64) -> u64 {
        let state = self.state();
        let mut sets = vec![&state.returned];
        if state.verdict == Verdict::Sound {
            sets.extend([&state.swept, &state.let_go]);
        }
        let mut at = end;
        loop {
            let before = at;
            at = sets.iter().map(|set| set.start_of_run(at)).min().unwrap_or(at);
            if at == before {
                return at;
            }
        }
    }

    /// The file was cut: there are no clusters from `end` on. No request is in flight.
    pub(crate) fn forget_from(&self, end: u64) {
        self.change(|state| {
            let State { returned, swept, let_go, away, limbo, late, doubtful, .. } = state;
            [returned, swept, let_go, away, limbo, late, doubtful]
                .into_iter()
                .for_each(|set| set.forget_from(end));
            state.waiting.iter_mut().for_each(|(_, set)| set.forget_from(end));
            state.unpunched.iter_mut().for_each(|(_, set)| set.forget_from(end));
            state.held = None;
        });
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state();
        let result = change(&mut state);
        let is_sound = state.verdict == Verdict::Sound;
        let any_free = is_sound && !(state.swept.is_empty() && state.let_go.is_empty());
        self.any.store(any_free || !state.returned.is_empty(), Ordering::Relaxed);
        self.any_in_limbo.store(!state.limbo.is_empty(), Ordering::Release);
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hold(&mut self, run: Range<u64>) {
        if let Some(held) = &mut self.held {
            held.insert(run);
        }
    }

    /// The set with the lowest free cluster.
    fn lowest(&mut self) -> &mut HostSet {
        match (self.swept.first(), self.let_go.first()) {
            (Some(swept), Some(let_go)) if let_go < swept => &mut self.let_go,
            (None, _) => &mut self.let_go,
            _ => &mut self.swept,
        }
    }

    /// Clusters are free, but for doubtful ones, after a punch where the storage is told.
    fn free(&mut self, origin: Origin, mut clusters: HostSet, mode: DiscardMode) {
        let late = clusters.take_common(&self.late);
        self.doubtful.absorb(&late);
        match mode {
            DiscardMode::PassDown => self.unpunched.push_back((origin, clusters)),
            DiscardMode::Reuse | DiscardMode::Ignore => self.is_free(origin, &clusters),
        }
    }

    fn is_free(&mut self, origin: Origin, clusters: &HostSet) {
        clusters.runs().for_each(|run| self.away.remove(run));
        match origin {
            Origin::Swept => self.swept.absorb(clusters),
            Origin::LetGo => self.let_go.absorb(clusters),
        }
    }
}

fn used(run: Range<u64>) -> HostRun {
    let first = HostCluster::new(run.start).expect("behind the header's cluster");
    HostRun { first, count: run.end - run.start, fresh: false }
}
