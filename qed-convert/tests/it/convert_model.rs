//! Random sparse disks to every target and back, in memory, for any number of threads.

use std::sync::Arc;

use qed_convert::qcow2::{Qcow2Compression, Qcow2CreateOptions, Qcow2Version};
use qed_convert::{ConvertOptions, NewBacking, NoProgress, Order, Target, TargetContent, convert};
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, GivenBacking, Identity, Image, Layout, LockPolicy,
    RecoveryPolicy, VirtualDisk, WriteContext, create, testing,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{Epoch, ErrorKind, Geometry, GuestOffset, ImageUuid};

use crate::lab::{
    ModelDisk, Random, assert_same, memory, noise, open_qcow2, open_qed, options, read_all,
};

const SEEDS: u64 = 40;

/// A source, perhaps with a backing file, and how to convert it.
struct Case {
    name: String,
    source: ModelDisk,
    backing: Option<Arc<ModelDisk>>,
    options: ConvertOptions,
}

impl Case {
    fn random(seed: u64) -> (Self, Random) {
        let mut random = Random::new(seed);
        let size = (1 + random.below(6000)) * 512;
        let backing = (random.below(2) == 0).then(|| {
            let size = (1 + random.below(6000)) * 512;
            Arc::new(ModelDisk::random(&mut random, size, None))
        });
        let source = ModelDisk::random(&mut random, size, backing.as_deref());
        let threads = usize::try_from(1 + random.below(8)).expect("fits in memory");
        let options = ConvertOptions {
            order: random.pick(&[Order::Guest, Order::Any]),
            sparse_len: random.pick(&[0, 512, 4096, 4096, 5000, 65536, 1 << 30]),
            ..options(threads)
        };
        let name = format!("seed {seed}, {size} bytes, {options:?}");
        (Self { name, source, backing, options }, random)
    }

    /// The backing file of the target: the source's, or none to copy everything.
    fn new_backing(&self) -> Option<NewBacking> {
        let backing = self.backing.as_ref()?;
        Some(NewBacking { name: b"base".to_vec(), format: Some("raw".into()), len: backing.len() })
    }

    fn backing_file(&self) -> Option<Arc<dyn VirtualDisk>> {
        self.backing.clone().map(|backing| backing as Arc<dyn VirtualDisk>)
    }

    #[track_caller]
    fn convert(&self, target: Target<'_>) {
        let what = format!("{target:?} of {}", self.name);
        let summary = convert(&self.source, target, &self.options, &NoProgress).expect(&what);
        assert_eq!(summary.virtual_size, self.source.len());
        assert_eq!(summary.unreadable_len, 0);
    }
}

#[test]
fn raw_targets_hold_the_source_and_nothing_else() {
    for seed in 0..SEEDS {
        let (case, mut random) = Case::random(seed);
        let new = Arc::new(MemoryStorage::new(noise(&mut random, 100_000)));
        case.convert(Target::Raw(new.clone()));
        assert_same(&new.to_vec(), &case.source.bytes, &case.name);

        let old = noise(&mut random, case.source.len() + 700);
        let existing = Arc::new(MemoryStorage::new(old.clone()));
        let content = TargetContent::Unknown;
        case.convert(Target::RawImage { storage: existing.clone(), content });
        let (copy, rest) = old.split_at(case.source.bytes.len());
        assert_ne!(copy, &case.source.bytes);
        assert_same(&existing.to_vec(), &[&case.source.bytes, rest].concat(), &case.name);

        let mut stream = Vec::new();
        case.convert(Target::Stream(Box::new(&mut stream)));
        assert_same(&stream, &case.source.bytes, &case.name);
    }
}

#[test]
fn qed_targets_read_back_as_the_source() {
    for seed in 0..SEEDS {
        let (case, mut random) = Case::random(seed);
        let cluster = 1 << random.pick(&[12, 13, 16, 20, 23]);
        let geometry = Geometry::new(cluster, random.pick(&[1, 2, 4, 16])).unwrap();
        for backing in [None, case.new_backing()] {
            let file = case.backing_file().filter(|_| backing.is_some());
            let storage = memory();
            case.convert(Target::Qed {
                storage: storage.clone(),
                geometry,
                layout: Layout::Classic,
                backing,
            });
            assert_same(&read_all(&open_qed(storage, file)), &case.source.bytes, &case.name);
        }
    }
}

#[test]
fn qcow2_targets_read_back_as_the_source() {
    for seed in 0..SEEDS {
        let (case, mut random) = Case::random(seed);
        let version = random.pick(&[Qcow2Version::V2, Qcow2Version::V3, Qcow2Version::V3]);
        let is_v3 = version == Qcow2Version::V3;
        for backing in [None, case.new_backing()] {
            let file = case.backing_file().filter(|_| backing.is_some());
            let compression = random.pick(&[Qcow2Compression::Zlib, Qcow2Compression::Zstd]);
            let options = Qcow2CreateOptions {
                version,
                cluster_len: 1 << random.pick(&[9, 10, 12, 16, 21]),
                refcount_bits: if is_v3 { random.pick(&[1, 2, 8, 16, 64]) } else { 16 },
                lazy_refcounts: is_v3 && random.below(2) == 0,
                compression: if is_v3 { compression } else { Qcow2Compression::Zlib },
                backing,
                ..Qcow2CreateOptions::new(0)
            };
            let what = format!("{options:?} of {}", case.name);
            for compress in [false, true] {
                let (storage, options) = (memory(), options.clone());
                case.convert(Target::Qcow2 { storage: storage.clone(), options, compress });
                let image = open_qcow2(storage, file.clone());
                assert_same(&read_all(&image), &case.source.bytes, &what);
            }
        }
    }
}

/// A block device full of other bytes.
fn stale_device() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::device(vec![0xee; 40 << 20]))
}

// spec-test: QED-DEV-02
#[test]
fn nothing_of_what_a_device_held_shows_in_a_new_image() {
    for seed in 0..SEEDS / 4 {
        let (case, mut random) = Case::random(seed);
        let cluster = 1 << random.pick(&[12, 13, 16, 20, 22]);
        let geometry = Geometry::new(cluster, random.pick(&[1, 2])).expect("a legal shape");
        let identity = Identity { uuid: ImageUuid::new([5; 16]), epoch: Epoch::new(6) };
        let journal = Layout::Journal { identity, ring_len_bytes: 32 << 10 };
        let layout = random.pick(&[Layout::Classic, Layout::Compat(identity), journal]);
        for backing in [None, case.new_backing()] {
            let file = case.backing_file().filter(|_| backing.is_some());
            let storage = stale_device();
            let target = Target::Qed { storage: storage.clone(), geometry, layout, backing };
            case.convert(target);
            let image = open_qed(storage.clone(), file.clone());
            assert_same(&read_all(&image), &case.source.bytes, &case.name);
            drop(image);
            // Grown by a program that looks at no cluster.
            let size = case.source.len().next_multiple_of(cluster.into());
            storage.write_at(&size.to_le_bytes(), 48).expect("the size lies in the header");
            let grown = read_all(&open_qed(storage, file.clone()));
            let (_, behind) = grown.split_at(case.source.bytes.len());
            let shows = file.map_or(0, |file| file.len()).max(case.source.len());
            let from = usize::try_from(shows.min(size) - case.source.len()).expect("in memory");
            assert!(behind[from..].iter().all(|byte| *byte == 0), "{}", case.name);

            let version = random.pick(&[Qcow2Version::V2, Qcow2Version::V3]);
            let backing = case.new_backing().filter(|_| random.below(2) == 0);
            let file = case.backing_file().filter(|_| backing.is_some());
            let cluster_len = 1 << random.pick(&[9, 12, 16]);
            let options =
                Qcow2CreateOptions { version, cluster_len, backing, ..Qcow2CreateOptions::new(0) };
            let (storage, compress) = (stale_device(), random.below(2) == 0);
            case.convert(Target::Qcow2 { storage: storage.clone(), options, compress });
            assert_same(&read_all(&open_qcow2(storage, file)), &case.source.bytes, &case.name);
        }
    }
}

// spec-test: QED-DEV-01
#[test]
fn a_device_that_is_too_small_is_said_to_be() {
    let source = ModelDisk::of_data(vec![7; 5120]);
    let geometry = Geometry::new(4096, 1).expect("a legal shape");
    // Header, L1 and L2 table, two clusters of data, of which the last is needed in part.
    for (len, fits) in
        [(4095 * 2, false), (4 * 4096, false), (5 * 4096 - 1, false), (5 * 4096, true)]
    {
        let storage = Arc::new(MemoryStorage::device(vec![0xee; len]));
        let layout = Layout::Classic;
        let target = Target::Qed { storage: storage.clone(), geometry, layout, backing: None };
        let done = convert(&source, target, &options(1), &NoProgress);
        assert_eq!(done.is_ok(), fits, "{len}: {done:?}");
        assert_eq!(done.err().map(|error| error.kind()), (!fits).then_some(ErrorKind::NoSpace));
        assert_eq!(storage.to_vec().starts_with(b"QED"), fits, "{len}");
    }
}

#[test]
fn existing_qed_images_are_overwritten_and_keep_their_rest() {
    overwrite_existing_images();
}

#[test]
fn neither_a_cipher_nor_used_clusters_in_the_image_are_seen_by_a_conversion() {
    testing::with_toy_cipher(overwrite_existing_images);
    testing::with_used_clusters(100, overwrite_existing_images);
}

/// Converts to images with a content of their own, and from there to a raw disk.
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
fn overwrite_existing_images() {
    for seed in 0..SEEDS {
        let (case, mut random) = Case::random(seed);
        let size = case.source.len() + 1024 * random.below(500);
        let geometry = Geometry::new(1 << random.pick(&[12, 16]), 2).unwrap();
        let overlay = case.new_backing().filter(|_| random.below(2) == 0);
        let storage = memory();
        let backing = overlay.as_ref().map(|backing| CreateBacking {
            name: backing.name.clone(),
            format: BackingFormat::Raw,
        });
        create(
            &*storage,
            &CreateOptions { geometry, image_size: size, backing, layout: Layout::Classic },
        )
        .unwrap();
        let gate = GivenBacking(case.backing_file());
        let context = WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Refuse);
        let image = Image::open(storage.clone(), &context).unwrap();
        let mut want = vec![0; usize::try_from(size).unwrap()];
        let content = if overlay.is_some() {
            let backing = case.backing.as_ref().unwrap();
            let shown = backing.bytes.len().min(want.len());
            want[..shown].copy_from_slice(&backing.bytes[..shown]);
            TargetContent::SourceFrom(1)
        } else {
            let len = random.below(size);
            let old = noise(&mut random, len);
            image.write_at(&old, GuestOffset::new(0)).unwrap();
            want[..old.len()].copy_from_slice(&old);
            TargetContent::Unknown
        };
        want[..case.source.bytes.len()].copy_from_slice(&case.source.bytes);
        case.convert(Target::QedImage { image: &image, content });
        image.close().unwrap();
        let file = case.backing_file().filter(|_| overlay.is_some());
        let image = open_qed(storage, file);
        assert_same(&read_all(&image), &want, &case.name);
        let raw = memory();
        convert(&image, Target::Raw(raw.clone()), &case.options, &NoProgress).unwrap();
        assert_same(&raw.to_vec(), &want, &case.name);
    }
}

#[test]
fn in_guest_order_the_file_does_not_depend_on_the_threads() {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let source = ModelDisk::random(&mut random, 6 << 20, None);
        let files = |target: &dyn Fn(Arc<dyn Storage>) -> Target<'static>| {
            [1, 2, 8].map(|threads| {
                let storage = memory();
                convert(&source, target(storage.clone()), &options(threads), &NoProgress).unwrap();
                storage.to_vec()
            })
        };
        let geometry = Geometry::new(4096, 1).unwrap();
        let qed = files(&|storage| Target::Qed {
            storage,
            geometry,
            layout: Layout::Classic,
            backing: None,
        });
        let qcow2_options = Qcow2CreateOptions { cluster_len: 4096, ..Qcow2CreateOptions::new(0) };
        let qcow2 = files(&|storage| {
            let options = qcow2_options.clone();
            Target::Qcow2 { storage, options, compress: true }
        });
        for [one, two, eight] in [qed, qcow2] {
            assert!(one == two && one == eight, "seed {seed}");
        }
    }
}

#[test]
fn zeros_inside_data_take_no_clusters_unless_asked_for() {
    let source = ModelDisk::of_data(vec![0; 1 << 20]);
    let sizes = [4096, 0].map(|sparse_len| {
        let storage = memory();
        let geometry = Geometry::new(4096, 1).unwrap();
        let target = Target::Qed {
            storage: storage.clone(),
            geometry,
            layout: Layout::Classic,
            backing: None,
        };
        let options = ConvertOptions { sparse_len, ..options(2) };
        let summary = convert(&source, target, &options, &NoProgress).unwrap();
        (storage.to_vec().len(), summary.data_len)
    });
    assert_eq!(sizes, [(2 * 4096, 0), (3 * 4096 + (1 << 20), 1 << 20)]);
}
