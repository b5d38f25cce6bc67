//! What must hold after a crash, whatever survived it.

use std::cell::RefCell;
use std::sync::Arc;

use qed_fuzz::{CrashState, Seen, SparseContent, Subject, each_state, told};
use qed_io::{Record, Recorder, Storage};

use crate::mutant::Mutant;
use crate::session::{SLOTS, Session, Tables, read_only};
use crate::workload::{History, Set, Start, Step, run_steps};

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

/// A file that a crash cuts while a workload runs on it, or while it recovers; then it is recovered.
pub(crate) struct Journaled<'a> {
    pub(crate) mutant: Mutant,
    pub(crate) kind: Start,
    pub(crate) start: SparseContent,
    /// What is done; of a recovery nothing.
    pub(crate) steps: &'a [Step],
    /// What the tables were after what, once it was done.
    pub(crate) history: RefCell<History>,
}

/// What recovered a state, and how many commits that took.
pub(crate) struct Recovered<'a> {
    commits: u64,
    recovery: Journaled<'a>,
    records: Vec<Record>,
}

impl<'a> Subject for Journaled<'a> {
    type Kind = Recovered<'a>;

    fn make(&self) -> SparseContent {
        self.start.clone()
    }

    fn run(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        if self.steps.is_empty() {
            return self.recover(storage);
        }
        let recorder = Arc::new(Recorder::new(storage));
        let history = run_steps(&recorder, self.steps, self.mutant).map_err(told("a step"))?;
        self.history.replace(history);
        Ok(())
    }

    /// Recovers, commits probes and closes.
    fn recover(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        let recorder = Arc::new(Recorder::new(storage));
        let session = Session::open(recorder.clone(), self.mutant).map_err(told("recovery"))?;
        let mut history = History::new(session.tables().map_err(told("reading"))?);
        for probe in probes() {
            history.commit(&recorder, &session, &[probe]).map_err(told("a probe"))?;
        }
        session.quiesce().map_err(told("closing"))?;
        self.history.replace(history);
        Ok(())
    }

    fn judge(&self, state: &CrashState) -> Result<Recovered<'a>, String> {
        let allowed = self.history.borrow().allowed(state.position);
        let recovery = Journaled {
            mutant: self.mutant,
            kind: self.kind,
            start: state.content.clone(),
            steps: &[],
            history: RefCell::new(History::new(Tables::new())),
        };
        let disk = self.kind.file(&state.content);
        let (shown, commits) = read_only(disk.clone(), self.mutant).map_err(told("reading"))?;
        if !allowed.contains(&shown) {
            return Err(difference("a reader sees", &shown, &allowed[0]));
        }
        let recorder = Arc::new(Recorder::new(disk.clone()));
        recovery.recover(recorder.clone())?;
        let [first, last] =
            [0, usize::MAX].map(|at| recovery.history.borrow().allowed(at).remove(0));
        if first != shown {
            return Err(difference("recovered", &first, &shown));
        }
        let (end, _) = read_only(disk, self.mutant).map_err(told("reading again"))?;
        if end != last {
            return Err(difference("closed", &end, &last));
        }
        Ok(Recovered { commits, recovery, records: recorder.records() })
    }

    fn tears(&self, sector: u64) -> bool {
        Session::is_checksummed(sector)
    }
}

impl Tally {
    /// Judges the states of a run that differ; one in four is crashed again while it recovers.
    pub(crate) fn judge_all(
        &mut self,
        subject: &Journaled<'_>,
        run: &[Record],
        most: u64,
    ) -> Result<(), String> {
        let (mut seen, mut turn) = (Seen::default(), 0);
        each_state(subject, run, most, &mut |state| {
            if !seen.add(&state.content) {
                return Ok(());
            }
            self.states += 1;
            let recovered = subject.judge(&state)?;
            self.replayed += u64::from(recovered.commits > 0);
            if !self.states.is_multiple_of(4) {
                return Ok(());
            }
            let Recovered { recovery, records, .. } = recovered;
            let again = each_state(&recovery, &records, AGAIN, &mut |state| {
                turn += 1;
                if self.again < ALL_AGAIN || turn % ONE_AGAIN_IN == 0 {
                    self.again += 1;
                    self.replayed += u64::from(recovery.judge(&state)?.commits > 0);
                }
                Ok(())
            });
            again.map_err(|problem| format!("crashed again: {problem}"))
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
