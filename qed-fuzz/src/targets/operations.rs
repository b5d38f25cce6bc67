//! Lists of operations on sound images, over nothing or over a chain: the image reads as its model,
//! and is in order whenever it is closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use qed_check::recovery_hook;
use qed_core::{
    DEFAULT_CACHE_LIMIT_BYTES, DiscardMode, GivenBacking, Image, LockPolicy, Prepared, ReadContext,
    ReadOnlyImage, RecoveryPolicy, WriteContext, ZeroMode,
};
use qed_spec::GuestOffset;

use crate::apply::apply;
use crate::branches::Branches;
use crate::generators::disk::{chain, layout, new_image, plan};
use crate::generators::steps::{Step, steps};
use crate::model::Model;
use crate::operation::{Operation, content};
use crate::oracles::assert_reads_as;
use crate::oracles::{assert_clean, assert_sound};
use crate::size::usize_of;
use crate::sparse::SparseStorage;

/// Times that the image is opened, and steps each time.
const TURNS: u8 = 3;
const MAX_STEPS: usize = 16;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let under = chain(from)?;
    let (plan, layout) = (plan(from)?, layout(from)?);
    let storage = Arc::new(SparseStorage::of_len(0));
    let (gate, model) = new_image(&*storage, &plan, layout, under.as_ref());
    let mut scene = Scene { storage, gate, model, may_leak: false };
    for _ in 0..from.int_in_range(1..=TURNS)? {
        let list = steps(from, &plan, scene.model.size(), MAX_STEPS)?;
        for step in &list {
            branches.note("step", step);
        }
        let cache_limit_bytes = if from.arbitrary()? { 0 } else { DEFAULT_CACHE_LIMIT_BYTES };
        let ending = *from.choose(&[Ending::Closed, Ending::LetGo, Ending::Killed])?;
        branches.note("ending", ending);
        let discard = *from.choose(&[DiscardMode::Reuse, DiscardMode::PassDown])?;
        scene.turn(&list, How { cache_limit_bytes, discard }, ending);
        scene.assert_in_order();
    }
    Ok(())
}

/// What becomes of an open image.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Closed,
    LetGo,
    /// The program is killed right after a flush.
    Killed,
}

/// How an image is opened.
#[derive(Debug, Clone, Copy)]
struct How {
    cache_limit_bytes: u64,
    discard: DiscardMode,
}

struct Scene {
    storage: Arc<SparseStorage>,
    gate: GivenBacking,
    model: Model,
    /// Something left clusters in the middle of the file that nothing names.
    may_leak: bool,
}

impl Scene {
    /// Opens the image, takes the steps, and closes it, lets it go or is killed.
    fn turn(&mut self, list: &[Step], how: How, ending: Ending) {
        let How { cache_limit_bytes, discard } = how;
        let context = WriteContext {
            cache_limit_bytes,
            discard,
            ..WriteContext::new(&self.gate, LockPolicy::Take, RecoveryPolicy::Refuse)
        };
        let image = Image::open(Arc::<SparseStorage>::clone(&self.storage), &context);
        let image = image.expect("a sound image opens");
        let mut now = Instant::now();
        for step in list {
            take(&image, step, &mut now, &mut self.model);
            self.may_leak |= matches!(
                step,
                Step::Operate(Operation::Resize { .. } | Operation::Unmap { .. })
                    | Step::Abandon { .. }
                    | Step::Discard { .. }
            );
        }
        assert_reads_as(&image, &self.model);
        match ending {
            Ending::Closed => image.close().expect("memory takes every write"),
            Ending::LetGo => {}
            Ending::Killed => {
                image.flush().expect("memory takes every write");
                self.storage = Arc::new(self.storage.copy());
                self.may_leak = true;
                self.recover();
            }
        }
    }

    /// Opens an image that was not closed, which shows what was flushed at once, and closes it.
    fn recover(&self) {
        let context =
            WriteContext::new(&self.gate, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
        let read = ReadContext::new(&self.gate, LockPolicy::Take);
        let reader = ReadOnlyImage::open(Arc::<SparseStorage>::clone(&self.storage), &read);
        assert_reads_as(&reader.expect("what was flushed can be read"), &self.model);
        let image = Image::open(Arc::<SparseStorage>::clone(&self.storage), &context);
        let image = image.expect("what was flushed can be recovered");
        assert_reads_as(&image, &self.model);
        image.close().expect("memory takes every write");
    }

    fn assert_in_order(&self) {
        if self.may_leak {
            assert_sound(&*self.storage);
        } else {
            assert_clean(&*self.storage);
        }
        let context = ReadContext::new(&self.gate, LockPolicy::Take);
        let image = ReadOnlyImage::open(Arc::<SparseStorage>::clone(&self.storage), &context);
        assert_reads_as(&image.expect("a sound image opens"), &self.model);
    }
}

/// Takes one step; the model keeps up with it.
fn take(image: &Image, step: &Step, now: &mut Instant, model: &mut Model) {
    match step {
        Step::Operate(Operation::Read { range }) => {
            let mut found = vec![0xee; usize_of(range.end - range.start)];
            image.read_at(&mut found, GuestOffset::new(range.start)).expect("inside the disk");
            let expected = &model.bytes()[usize_of(range.start)..usize_of(range.end)];
            assert!(found == expected, "reading {range:#x?}");
        }
        Step::Operate(operation) => {
            apply(image, operation).unwrap_or_else(|error| panic!("{operation:?}: {error:?}"));
            model.apply(operation);
        }
        Step::ZeroOverAnyBacking(range) => {
            let (at, len) = (GuestOffset::new(range.start), range.end - range.start);
            image.write_zeroes(at, len, ZeroMode::Explicit).expect("inside the disk");
            model.apply(&Operation::WriteZeroes { range: range.clone() });
        }
        Step::Discard { range, whole } => {
            let (at, len) = (GuestOffset::new(range.start), range.end - range.start);
            image.discard(at, len).expect("inside the disk");
            model.apply(&Operation::WriteZeroes { range: whole.clone() });
        }
        Step::Sweep => {
            let swept = image.sweep().expect("nothing is named twice");
            assert!(swept, "the tables are read at once");
        }
        Step::Abandon { range, fill } => {
            let request = image.request();
            let len = range.end - range.start;
            let prepared = request.prepare(GuestOffset::new(range.start), len);
            if let Prepared::Allocating(allocation) = prepared.expect("inside the disk") {
                let bytes = content(*fill, allocation.guest());
                let written = image.storage().write_at(&bytes, allocation.host().get());
                written.expect("memory takes every write");
            }
        }
        Step::Maintain { seconds } => {
            *now += Duration::from_secs(*seconds);
            image.maintain(*now).expect("memory takes every write");
        }
    }
}
