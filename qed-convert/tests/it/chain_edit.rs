//! Commit and rebase: the guest sees the same bytes before and after.

use std::sync::Arc;

use qed_convert::commit::{CommitBase, commit};
use qed_convert::rebase::{RebaseError, RebaseOptions, rebase};
use qed_convert::{NoProgress, Progress};
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, GivenBacking, Image, Layout, LockPolicy,
    RecoveryPolicy, RefuseBacking, VirtualDisk, WriteContext, ZeroMode, create,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{Geometry, GuestOffset};

use crate::lab::{ModelDisk, Random, assert_same, memory, noise, open_qed, options, read_all};

fn new_qed(storage: &dyn Storage, geometry: Geometry, size: u64, overlay: bool) {
    let backing =
        overlay.then(|| CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw });
    create(
        storage,
        &CreateOptions { geometry, image_size: size, backing, layout: Layout::Classic },
    )
    .expect("a working storage");
}

fn open(storage: Arc<dyn Storage>, backing: Option<Arc<dyn VirtualDisk>>) -> Image {
    let gate = GivenBacking(backing);
    Image::open(storage, &WriteContext::new(&gate, LockPolicy::None, RecoveryPolicy::Refuse))
        .expect("a working storage")
}

/// Writes random data and zeros.
fn scribble(image: &Image, random: &mut Random) {
    let size = image.image_size();
    for _ in 0..random.below(12) {
        let at = random.below(size);
        let len = (1 + random.below(60_000)).min(size - at);
        if random.below(3) == 0 {
            image
                .write_zeroes(GuestOffset::new(at), len, ZeroMode::IfNeeded)
                .expect("a working storage");
        } else {
            image.write_at(&noise(random, len), GuestOffset::new(at)).expect("a working storage");
        }
    }
    image.flush().expect("a working storage");
}

#[test]
fn a_committed_base_reads_as_its_overlay_did() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let geometry = Geometry::new(1 << random.pick(&[12, 16]), 2).unwrap();
        let base_size = (1 + random.below(3000)) * 512;
        let size = (1 + random.below(3000)) * 512;
        let base = memory();
        let is_raw = random.below(2) == 0;
        let base_file: Arc<dyn VirtualDisk> = if is_raw {
            base.write_at(&noise(&mut random, base_size), 0).unwrap();
            Arc::new(qed_core::RawFile::open(base.clone()).unwrap())
        } else {
            new_qed(&*base, geometry, base_size, false);
            let image = open(base.clone(), None);
            scribble(&image, &mut random);
            image.close().unwrap();
            Arc::new(open_qed(base.clone(), None))
        };
        let top = memory();
        new_qed(&*top, geometry, size, true);
        let overlay = open(top.clone(), Some(base_file));
        scribble(&overlay, &mut random);
        let want = read_all(&overlay);
        let threads = usize::try_from(1 + random.below(4)).unwrap();
        let got = if is_raw {
            let base_of = CommitBase::Raw(base.clone());
            commit(&overlay, 1, base_of, &options(threads), &NoProgress).unwrap();
            base.to_vec()
        } else {
            let image = open(base.clone(), None);
            let base_of = CommitBase::Qed(&image);
            commit(&overlay, 1, base_of, &options(threads), &NoProgress).unwrap();
            image.close().unwrap();
            read_all(&open_qed(base, None))
        };
        assert_same(&got[..want.len()], &want, &format!("seed {seed}, raw {is_raw}"));
        assert!(got.len() as u64 == base_size.max(size), "seed {seed}");
    }
}

#[test]
fn a_rebased_overlay_reads_as_before_and_takes_no_more_than_it_must() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let cluster = 1 << random.pick(&[12, 16, 22]);
        let geometry = Geometry::new(cluster, 2).unwrap();
        let size = (1 + random.below(6000)) * 512;
        let old_size = (1 + random.below(6000)) * 512;
        let old = ModelDisk::random(&mut random, old_size, None);
        // The new backing file is the old one with changes, of another size, or none.
        let mut new = ModelDisk::of_data(old.bytes.clone());
        for _ in 0..random.below(4) {
            let at = usize::try_from(random.below(old_size)).unwrap();
            new.bytes[at] ^= 1;
        }
        if random.below(3) == 0 {
            let more = noise(&mut random, 5120);
            new.push(more, qed_core::GuestExtentKind::Data { host_offset: 0 }, 0);
        }
        let new: Option<Arc<dyn VirtualDisk>> =
            (random.below(4) != 0).then(|| Arc::new(new) as Arc<dyn VirtualDisk>);
        let storage = memory();
        new_qed(&*storage, geometry, size, true);
        let image = open(storage.clone(), Some(Arc::new(old)));
        scribble(&image, &mut random);
        let want = read_all(&image);
        let threads = std::num::NonZeroUsize::new(1 + usize::try_from(seed % 4).unwrap()).unwrap();
        let run = RebaseOptions { threads };
        let written = rebase(&image, new.as_deref(), &run, &NoProgress).unwrap();
        let again = rebase(&image, new.as_deref(), &run, &NoProgress).unwrap();
        assert_eq!(again, 0, "seed {seed}: {written} bytes, then {again}");
        image.close().unwrap();
        let rebased = open_qed(storage, new);
        assert_same(&read_all(&rebased), &want, &format!("seed {seed}"));
    }
}

#[test]
fn equal_backing_files_cost_nothing() {
    let storage = memory();
    new_qed(&*storage, Geometry::new(65536, 2).unwrap(), 4 << 20, true);
    let disk = Arc::new(ModelDisk::of_data(noise(&mut Random::new(1), 3 << 20)));
    let image = open(storage.clone(), Some(disk.clone()));
    let before = storage.to_vec();
    let written = rebase(&image, Some(&*disk), &RebaseOptions::default(), &NoProgress).unwrap();
    assert_eq!(written, 0);
    assert!(storage.to_vec() == before);
}

struct Impatient;

impl Progress for Impatient {
    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_rebase_can_be_cancelled() {
    let storage: Arc<MemoryStorage> = memory();
    new_qed(&*storage, Geometry::new(65536, 2).unwrap(), 4 << 20, false);
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Image::open(storage, &context).unwrap();
    let result = rebase(&image, None, &RebaseOptions::default(), &Impatient);
    assert!(matches!(result, Err(RebaseError::Cancelled)), "{result:?}");
}
