//! What a target shares with the source reads as what is copied, and so does what could not be shared.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qed_convert::qcow2::Qcow2CreateOptions;
use qed_convert::{ConvertOptions, NoProgress, Order, Target, convert};
use qed_core::{Layout, RawFile, VirtualDisk};
use qed_io::{MemoryStorage, Storage};
use qed_spec::Geometry;

use crate::lab::{ModelDisk, Random, assert_same, open_qcow2, open_qed, options, read_all};

const UNIT: u64 = 4096;

/// A file that shares whole units with others of its kind, by copying them; every `refused`th call
/// fails after it has written something else, none if that is 0.
#[derive(Debug, Default)]
struct Neighbour {
    bytes: MemoryStorage,
    refused: u64,
    calls: AtomicU64,
}

impl Storage for Neighbour {
    fn sharing_unit(&self, _: &dyn Storage) -> Option<u64> {
        Some(UNIT)
    }

    fn share(&self, source: &dyn Storage, range: Range<u64>, at: u64) -> bool {
        let len = range.end - range.start;
        assert!([range.start, len, at].iter().all(|value| value.is_multiple_of(UNIT)), "{range:?}");
        let mut bytes = vec![0xee; usize::try_from(len).expect("small")];
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let works = self.refused == 0 || !call.is_multiple_of(self.refused);
        if works {
            source.read_at(&mut bytes, range.start).expect("inside the file");
        }
        self.bytes.write_at(&bytes, at).expect("memory");
        works
    }

    qed_io::forward_storage!(bytes: len read_at write_at set_len flush write_zeroes punch_hole run_at growth lock);
}

fn image(format: &str, cluster_len: u32, storage: Arc<dyn Storage>) -> Target<'static> {
    match format {
        "raw" => Target::Raw(storage),
        "qed" => Target::Qed {
            storage,
            geometry: Geometry::new(cluster_len, 1).expect("a legal shape"),
            layout: Layout::Classic,
            backing: None,
        },
        _ => Target::Qcow2 {
            storage,
            options: Qcow2CreateOptions { cluster_len, ..Qcow2CreateOptions::new(0) },
            compress: false,
        },
    }
}

fn open(format: &str, storage: Arc<Neighbour>) -> Arc<dyn VirtualDisk> {
    match format {
        "raw" => Arc::new(RawFile::open(storage).expect("memory")),
        "qed" => Arc::new(open_qed(storage, None)),
        _ => Arc::new(open_qcow2(storage, None)),
    }
}

#[test]
fn shared_and_copied_runs_make_the_same_disk() {
    let mut random = Random::new(8);
    let mut shared = 0;
    for round in 0..120 {
        let size = (1 + random.below(9000)) * 512;
        let model = ModelDisk::random(&mut random, size, None);
        let want = read_all(&model);
        let formats = ["raw", "qed", "qcow2"];
        let (from, to) = (random.pick(&formats), random.pick(&formats));
        let clusters = [4096, 65536, 1 << 20];
        let source = Arc::new(Neighbour::default());
        let made = image(from, random.pick(&clusters), source.clone());
        convert(&model, made, &options(1), &NoProgress).unwrap();

        let target = Arc::new(Neighbour { refused: random.below(4), ..Neighbour::default() });
        let options = ConvertOptions {
            order: random.pick(&[Order::Guest, Order::Any]),
            ..options(1 + usize::try_from(random.below(4)).unwrap())
        };
        let made = image(to, random.pick(&clusters), target.clone());
        convert(&*open(from, source), made, &options, &NoProgress).unwrap();
        shared += target.calls.load(Ordering::Relaxed);
        let what = format!("round {round}: {from} to {to}, {size} bytes");
        assert_same(&read_all(&*open(to, target)), &want, &what);
    }
    assert!(shared > 100, "{shared} runs");
}

#[test]
fn what_has_to_be_looked_at_or_is_not_wanted_is_not_shared() {
    let source = Arc::new(Neighbour::default());
    source.write_at(&[7; 1 << 20], 0).unwrap();
    let all = ConvertOptions::default();
    for (options, compress, shares) in [
        (all.clone(), false, true),
        (all.clone(), true, false),
        (ConvertOptions { share: false, ..all.clone() }, false, false),
        (ConvertOptions { salvage: true, ..all.clone() }, false, false),
        (ConvertOptions { sparse_len: 0, ..all.clone() }, false, false),
    ] {
        let target = Arc::new(Neighbour::default());
        let storage: Arc<dyn Storage> = target.clone();
        let qcow2 = Target::Qcow2 { storage, options: Qcow2CreateOptions::new(0), compress };
        convert(&*open("raw", source.clone()), qcow2, &options, &NoProgress).unwrap();
        let calls = target.calls.load(Ordering::Relaxed);
        assert_eq!(calls > 0, shares, "{options:?} {compress}");
    }
}
