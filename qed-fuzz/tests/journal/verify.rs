//! What must hold after a crash, whatever survived it.

use std::sync::Arc;

use qed_fuzz::{SparseContent, SparseStorage, crash_points, told};
use qed_io::Recorder;

use crate::mutant::Mutant;
use crate::session::{SLOTS, Session, Tables, read_only};
use crate::workload::{History, Set, Start};

/// States of one crash point of a recovery: a sample of no more.
const AGAIN: u64 = 24;

/// So many of them are all verified, of later ones one in so many.
const ALL_AGAIN: u64 = 1000;
const ONE_AGAIN_IN: u64 = 64;

/// How much was verified.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// States of the workload.
    pub(crate) states: u64,
    /// Those in which recovery had something to do.
    pub(crate) replayed: u64,
    /// States of crashes during and after a recovery.
    pub(crate) again: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.states += other.states;
        self.replayed += other.replayed;
        self.again += other.again;
    }
}

/// Verifies states one by one.
pub(crate) struct Verifier {
    mutant: Mutant,
    start: Start,
    /// How often a recovery is crashed in turn.
    depth: u32,
    /// States of crashed recoveries that were built.
    turn: u64,
    pub(crate) tally: Tally,
}

impl Verifier {
    pub(crate) fn new(mutant: Mutant, start: Start, depth: u32) -> Self {
        Self { mutant, start, depth, turn: 0, tally: Tally::default() }
    }

    /// One state of the workload; one in four is crashed again while it recovers.
    pub(crate) fn verify(
        &mut self,
        content: SparseContent,
        allowed: &[Tables],
    ) -> Result<(), String> {
        self.tally.states += 1;
        let depth = if self.tally.states.is_multiple_of(4) { self.depth } else { 0 };
        self.recover(content, allowed, depth)
    }

    fn recover(
        &mut self,
        content: SparseContent,
        allowed: &[Tables],
        depth: u32,
    ) -> Result<(), String> {
        let disk = self.disk(content.clone());
        let (shown, commits) = read_only(disk.clone(), self.mutant).map_err(told("reading"))?;
        self.tally.replayed += u64::from(commits > 0);
        if !allowed.contains(&shown) {
            return Err(difference("a reader sees", &shown, &allowed[0]));
        }
        let recorder = Arc::new(Recorder::new(disk.clone()));
        let session = Session::open(recorder.clone(), self.mutant).map_err(told("recovery"))?;
        let mut history = History::new(session.tables().map_err(told("reading"))?);
        if history.allowed(0)[0] != shown {
            return Err(difference("recovered", &history.allowed(0)[0], &shown));
        }
        for probe in probes() {
            history.commit(&recorder, &session, &[probe]).map_err(told("a probe"))?;
        }
        session.quiesce().map_err(told("closing"))?;
        let (end, _) = read_only(disk, self.mutant).map_err(told("reading again"))?;
        let expected = history.allowed(usize::MAX).remove(0);
        if end != expected {
            return Err(difference("closed", &end, &expected));
        }
        if depth > 0 {
            self.crash_again(&content, &recorder, &history, depth)?;
        }
        Ok(())
    }

    fn crash_again(
        &mut self,
        start: &SparseContent,
        recorder: &Recorder,
        history: &History,
        depth: u32,
    ) -> Result<(), String> {
        for point in crash_points(start, &recorder.records()) {
            let allowed = history.allowed(point.position);
            let mut outcome = Ok(());
            point.with_garbage(Session::is_checksummed).for_each_state(AGAIN, |content| {
                self.turn += 1;
                let chosen = self.tally.again < ALL_AGAIN || self.turn.is_multiple_of(ONE_AGAIN_IN);
                if chosen && outcome.is_ok() {
                    self.tally.again += 1;
                    outcome = self.recover(content, &allowed, depth - 1);
                }
            });
            outcome.map_err(|error| format!("crashed again: {error}"))?;
        }
        Ok(())
    }

    fn disk(&self, content: SparseContent) -> Arc<SparseStorage> {
        Arc::new(match self.start {
            Start::Device => SparseStorage::new(content).into_device(),
            Start::New | Start::StaleRing => SparseStorage::new(content),
        })
    }
}

/// What is committed after a recovery: single blocks, where a lost commit may have left others.
fn probes() -> [Vec<Set>; 3] {
    [40, 41, 1500].map(|slot| vec![Set { slot, count: 1, value: slot }])
}

fn difference(what: &str, found: &Tables, expected: &Tables) -> String {
    let slots = (0..SLOTS as usize).filter(|slot| found[*slot] != expected[*slot]);
    let list: Vec<_> = slots.map(|slot| (slot, found[slot], expected[slot])).take(8).collect();
    format!("{what}: slots, found, expected: {list:?}")
}
