//! A few commits on a tiny image, recorded.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use qed_fuzz::{Random, SparseContent, SparseStorage};
use qed_io::{Recorder, Storage};
use qed_journal::TestImage;
use qed_spec::{Epoch, JournalRing, JournalSequence};

use crate::mutant::Mutant;
use crate::session::{RING_BLOCKS, SLOTS, Session, Tables};

/// Slots that get values which begin with this one: see [`TestImage::record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) slot: u64,
    pub(crate) count: u32,
    pub(crate) value: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Commit(Vec<Set>),
    /// Batches that are submitted, then committed; one without sets asks for a flush.
    Together(Vec<Vec<Set>>),
    Checkpoint,
    Quiesce,
    /// The program ends without closing and another one recovers.
    Reopen,
}

/// What the image is like before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// A regular file.
    New,
    /// A block device, full of other bytes.
    Device,
    /// A ring full of blocks that an earlier epoch left, with the numbers that come next.
    StaleRing,
}

#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) start: Start,
    pub(crate) steps: Vec<Step>,
}

/// What the tables were after each batch, and when which of them were promised.
pub(crate) struct History {
    /// The first is before any batch.
    states: Vec<Tables>,
    /// Position in the log, batches acknowledged, batches submitted.
    events: Vec<(usize, RangeInclusive<usize>)>,
}

/// A list of steps of a seed.
pub(crate) fn random(seed: u64) -> Workload {
    let mut random = Random::new(seed);
    let steps = (0..10).map(|_| match random.below(12) {
        0..6 => Step::Commit(sets(&mut random)),
        6 => Step::Together((0..3).map(|_| sets(&mut random)).collect()),
        7..9 => Step::Checkpoint,
        9 => Step::Quiesce,
        _ => Step::Reopen,
    });
    let steps = steps.collect();
    Workload { start: [Start::New, Start::Device, Start::StaleRing][seed as usize % 3], steps }
}

fn sets(random: &mut Random) -> Vec<Set> {
    let count = match random.below(4) {
        0 => 200 + random.below(300),
        _ => 1 + random.below(4),
    };
    let set = |_| {
        let slot = random.below(SLOTS);
        let count = (1 + random.below(40)).min(SLOTS - slot) as u32;
        Set { slot, count, value: random.below(6000) }
    };
    (0..count).map(set).collect()
}

/// Does the steps; what the tables were after each.
pub(crate) fn run_steps(
    recorder: &Arc<Recorder>,
    steps: &[Step],
    mutant: Mutant,
) -> io::Result<History> {
    let mut session = Session::open(recorder.clone(), mutant)?;
    let mut history = History::new(session.tables()?);
    for step in steps {
        match step {
            Step::Commit(sets) => {
                history.commit(recorder, &session, std::slice::from_ref(sets))?;
            }
            Step::Together(batches) => history.commit(recorder, &session, batches)?,
            Step::Checkpoint => session.checkpoint()?,
            Step::Quiesce => session.quiesce()?,
            Step::Reopen => session = Session::open(recorder.clone(), mutant)?,
        }
    }
    Ok(history)
}

impl History {
    pub(crate) fn new(tables: Tables) -> Self {
        Self { states: vec![tables], events: vec![(0, 0..=0)] }
    }

    /// Commits batches and notes when that was asked for and when it was done.
    pub(crate) fn commit(
        &mut self,
        recorder: &Recorder,
        session: &Session,
        batches: &[Vec<Set>],
    ) -> io::Result<()> {
        let acknowledged = self.states.len() - 1;
        for sets in batches {
            let mut tables = self.states[self.states.len() - 1].clone();
            sets.iter().for_each(|set| set.apply_to(&mut tables));
            self.states.push(tables);
        }
        let submitted = self.states.len() - 1;
        self.events.push((recorder.records().len(), acknowledged..=submitted));
        session.commit_together(batches)?;
        self.events.push((recorder.records().len(), submitted..=submitted));
        Ok(())
    }

    /// What the tables may be after a crash at this position.
    pub(crate) fn allowed(&self, position: usize) -> Vec<Tables> {
        let last = self.events.iter().rfind(|(at, _)| *at <= position);
        last.map_or(&self.states[..1], |(_, states)| &self.states[states.clone()]).to_vec()
    }
}

impl Set {
    fn apply_to(&self, tables: &mut Tables) {
        for index in 0..u64::from(self.count) {
            let step = if self.value > 1 { index } else { 0 };
            tables[(self.slot + index) as usize] = self.value + step;
        }
    }
}

impl Start {
    /// The file before the first step.
    pub(crate) fn content(self) -> SparseContent {
        let len = 16384 + (RING_BLOCKS + TestImage::TABLES) * 4096;
        let disk = self.file(&match self {
            // The journal asks for no more of a device than it has.
            Self::Device => SparseContent::stale(len, len + (10_000 << 12), 0xd7),
            Self::New | Self::StaleRing => SparseContent::default(),
        });
        TestImage::create(disk.clone(), RING_BLOCKS).unwrap();
        if self == Self::StaleRing {
            fill_ring(disk.clone());
        }
        disk.content()
    }

    /// A file of this kind.
    pub(crate) fn file(self, content: &SparseContent) -> Arc<SparseStorage> {
        let file = SparseStorage::new(content.clone());
        Arc::new(if self == Self::Device { file.into_device() } else { file })
    }
}

/// Leaves blocks with the numbers from 1 in the ring, then begins at 1 again in another epoch.
fn fill_ring(disk: Arc<dyn Storage>) {
    let session = Session::open(disk.clone(), Mutant::None).unwrap();
    for value in 2..2 + RING_BLOCKS {
        session.commit(&[Set { slot: value, count: 3, value }]).unwrap();
    }
    session.quiesce().unwrap();
    let image = TestImage::open(disk.clone()).unwrap();
    let old = image.setup().unwrap().ring;
    let ring = JournalRing::new(old.offset(), old.len_bytes(), JournalSequence::FIRST).unwrap();
    let mut builder = image.superblock().unwrap();
    builder.set_epoch(Epoch::new(77));
    image.write_superblock(builder, &ring).unwrap();
    disk.flush().unwrap();
}
