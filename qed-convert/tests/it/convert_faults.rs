//! Storage that fails, sources that cannot be read, callers that change their mind.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qed_convert::compare::{CompareError, CompareOptions, compare};
use qed_convert::qcow2::{Preallocation, Qcow2CreateOptions, Qcow2OptionError, Qcow2Version};
use qed_convert::{
    ConvertError, ConvertOptions, NewBacking, NoProgress, Progress, Target, TargetContent, convert,
};
use qed_core::{
    CreateOptions, Image, Layout, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, RequestKind, Storage};
use qed_spec::Geometry;

use crate::lab::{ModelDisk, Random, memory, open_qcow2, open_qed, options, read_all};

fn source() -> ModelDisk {
    ModelDisk::random(&mut Random::new(5), 2 << 20, None)
}

fn qed(storage: Arc<dyn Storage>) -> Target<'static> {
    Target::Qed {
        storage,
        geometry: Geometry::new(4096, 1).expect("a legal shape"),
        layout: Layout::Classic,
        backing: None,
    }
}

fn qcow2(storage: Arc<dyn Storage>) -> Target<'static> {
    let options = Qcow2CreateOptions { cluster_len: 4096, ..Qcow2CreateOptions::new(0) };
    Target::Qcow2 { storage, options, compress: true }
}

type MakeTarget = fn(Arc<dyn Storage>) -> Target<'static>;

#[test]
fn every_request_may_fail_and_no_image_is_left_that_looks_whole() {
    let source = source();
    let targets: [(&str, MakeTarget); 3] = [("raw", Target::Raw), ("qed", qed), ("qcow2", qcow2)];
    for (name, target) in targets {
        let clean = Arc::new(Faulty::new(memory()));
        convert(&source, target(clean.clone()), &options(1), &NoProgress).unwrap();
        let total = clean.requests();
        for (number, threads) in (0..total).flat_map(|number| [(number, 1), (number, 4)]) {
            for fault in [Fault::Io, Fault::NoSpace, Fault::Partial { bytes: 100 }] {
                let what =
                    format!("{name}, request {number} of {total}, {threads} threads, {fault:?}");
                let inner = memory();
                let faulty = Arc::new(Faulty::new(inner.clone()));
                faulty.fail_nth(number, fault, Repeat::Once);
                let result = convert(&source, target(faulty), &options(threads), &NoProgress);
                let Err(ConvertError::Write { source, .. }) = result else {
                    panic!("{what}: {result:?}");
                };
                assert!(source.raw_os_error().is_some(), "{what}: {source}");
                // Whoever finds a header finds all of the image: only its own flush, or the write
                // of the header itself, can have failed.
                let magic =
                    inner.to_vec().starts_with(b"QED\0") || inner.to_vec().starts_with(b"QFI\xfb");
                assert!(!magic || number + 2 >= total, "{what}: there is a header");
            }
        }
    }
}

#[test]
fn a_full_stream_says_where() {
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.0);
            self.0 -= len;
            if len == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(len) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let target = Target::Stream(Box::new(Full(600_000)));
    let result = convert(&source(), target, &options(4), &NoProgress);
    let Err(ConvertError::Stream { offset, source }) = result else { panic!("{result:?}") };
    assert!(offset <= 600_000);
    assert_eq!(source.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn existing_images_report_what_their_storage_says() {
    let storage = Arc::new(Faulty::new(memory()));
    create(&*storage, &CreateOptions::new(4 << 20)).unwrap();
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
    let image = Image::open(storage.clone(), &context).unwrap();
    storage.fail_when(|request| request.kind == RequestKind::Write, Fault::NoSpace, Repeat::Always);
    let target = Target::QedImage { image: &image, content: TargetContent::Zeros };
    let result = convert(&source(), target, &options(3), &NoProgress);
    assert!(matches!(result, Err(ConvertError::Image(_))), "{result:?}");
}

#[test]
fn targets_that_are_too_small_are_refused_before_they_are_changed() {
    let storage = Arc::new(MemoryStorage::new(vec![7; 1 << 20]));
    let content = TargetContent::Unknown;
    let target = Target::RawImage { storage: storage.clone(), content };
    let result = convert(&source(), target, &options(1), &NoProgress);
    assert!(matches!(
        result,
        Err(ConvertError::OutputTooSmall { source_len: 0x20_0000, target_len: 0x10_0000 })
    ));
    assert_eq!(storage.to_vec(), vec![7; 1 << 20]);
}

/// Counts what was given up.
#[derive(Default)]
struct Losses {
    bytes: AtomicU64,
}

impl Progress for Losses {
    fn unreadable(&self, _offset: u64, len: u64, error: &(dyn Error + 'static)) {
        assert!(!error.to_string().is_empty());
        self.bytes.fetch_add(len, Ordering::Relaxed);
    }
}

#[test]
fn salvage_gives_up_sectors_and_nothing_more() {
    let mut source = ModelDisk::of_data(vec![3; 3 << 20]);
    source.unreadable = vec![512 * 9, 512 * 10, (1 << 20) - 512, (3 << 20) - 512];
    let mut want = source.bytes.clone();
    for at in &source.unreadable {
        let at = usize::try_from(*at).unwrap();
        want[at..at + 512].fill(0);
    }
    for (threads, unmapped) in [(1, false), (3, false), (3, true)] {
        source.unmapped = false;
        let result = convert(&source, Target::Raw(memory()), &options(threads), &NoProgress);
        let Err(ConvertError::Read { offset, .. }) = result else { panic!("{result:?}") };
        assert!(source.unreadable.contains(&offset));

        source.unmapped = unmapped;
        let storage = memory();
        let losses = Losses::default();
        let options = ConvertOptions { salvage: true, ..options(threads) };
        let summary = convert(&source, qed(storage.clone()), &options, &losses).unwrap();
        assert_eq!((summary.unreadable_len, losses.bytes.into_inner()), (2048, 2048));
        assert!(read_all(&open_qed(storage, None)) == want);
    }
}

/// Cancels after some calls.
struct Patience(AtomicU64);

impl Progress for Patience {
    fn is_cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == 0
    }
}

#[test]
fn a_cancelled_conversion_leaves_no_image() {
    for patience in 0..4 {
        for threads in [1, 4] {
            let storage = memory();
            let patience = Patience(AtomicU64::new(patience));
            let result = convert(&source(), qcow2(storage.clone()), &options(threads), &patience);
            assert!(matches!(result, Err(ConvertError::Cancelled)), "{result:?}");
            assert!(!storage.to_vec().starts_with(b"QFI"));
        }
    }
    let disk = source();
    let patience = Patience(AtomicU64::new(1));
    let result = compare(&disk, &disk, &CompareOptions::default(), &patience);
    assert!(matches!(result, Err(CompareError::Cancelled)), "{result:?}");
}

/// Notes how progress went.
#[derive(Default)]
struct Log {
    last: AtomicU64,
}

impl Progress for Log {
    fn advanced(&self, done: u64, total: u64) {
        assert!(done <= total && total == 2 << 20);
        self.last.fetch_max(done, Ordering::Relaxed);
    }
}

#[test]
fn progress_ends_at_the_end() {
    let log = Log::default();
    convert(&source(), qed(memory()), &options(4), &log).unwrap();
    assert_eq!(log.last.into_inner(), 2 << 20);
}

#[test]
fn options_of_qcow2_are_refused_by_name() {
    let plain = Qcow2CreateOptions::new(0);
    let v2 = || Qcow2CreateOptions { version: Qcow2Version::V2, ..plain.clone() };
    let backing = |name: &[u8]| Some(NewBacking { name: name.to_vec(), format: None, len: 0 });
    let cases = [
        (
            Qcow2CreateOptions { cluster_len: 4 << 20, ..plain.clone() },
            "cluster size 4194304 is not a power of two in 512..=2097152",
        ),
        (
            Qcow2CreateOptions { cluster_len: 0, ..plain.clone() },
            "cluster size 0 is not a power of two in 512..=2097152",
        ),
        (
            Qcow2CreateOptions { refcount_bits: 12, ..plain.clone() },
            "refcount width 12 is not 1, 2, 4, 8, 16, 32 or 64 bits",
        ),
        (
            Qcow2CreateOptions { refcount_bits: 8, ..v2() },
            "a refcount width other than 16 bits needs compat=1.1",
        ),
        (Qcow2CreateOptions { lazy_refcounts: true, ..v2() }, "lazy_refcounts needs compat=1.1"),
        (
            Qcow2CreateOptions { preallocation: Preallocation::Full, ..plain.clone() },
            "writing QCOW2 images with preallocation=full is not supported",
        ),
        (
            Qcow2CreateOptions { extended_l2: true, ..plain.clone() },
            "writing QCOW2 images with extended_l2 is not supported",
        ),
        (
            Qcow2CreateOptions { encryption: Some("luks".into()), ..plain.clone() },
            "writing QCOW2 images with encryption (luks) is not supported",
        ),
        (
            Qcow2CreateOptions { backing: backing(&[b'x'; 1024]), ..plain.clone() },
            "backing file name of 1024 bytes is longer than the 1023 that fit",
        ),
        (
            Qcow2CreateOptions {
                backing: backing(&[b'x'; 400]),
                cluster_len: 512,
                ..plain.clone()
            },
            "backing file name of 400 bytes is longer than the 392 that fit",
        ),
        (Qcow2CreateOptions { backing: backing(b""), ..plain.clone() }, "backing file name"),
    ];
    for (options, text) in cases {
        let storage = Arc::new(MemoryStorage::new(vec![7; 100]));
        let target = Target::Qcow2 { storage: storage.clone(), options, compress: false };
        let error = convert(&source(), target, &self::options(1), &NoProgress).expect_err(text);
        assert_eq!(error.to_string(), text);
        assert_eq!(storage.to_vec(), vec![7; 100], "{text}");
    }
    let huge = Qcow2CreateOptions { cluster_len: 512, ..Qcow2CreateOptions::new(1 << 40) };
    let refused = Qcow2OptionError::SizeTooLarge { found: 1 << 40, max: 1 << 37 };
    assert_eq!(huge.validate(), Err(refused));
    assert!(open_qcow2_of(&plain).is_empty());
}

/// The bytes of an empty image with `options`.
fn open_qcow2_of(options: &Qcow2CreateOptions) -> Vec<u8> {
    let storage = memory();
    qed_convert::qcow2::create_qcow2(storage.clone(), options).expect("a working storage");
    read_all(&open_qcow2(storage, None))
}

#[test]
fn a_rate_is_kept_and_a_wait_for_it_can_be_cancelled() {
    let source = ModelDisk::of_data(vec![7; 4 << 20]);
    let limited = |rate| ConvertOptions { rate: std::num::NonZeroU64::new(rate), ..options(2) };
    let start = std::time::Instant::now();
    convert(&source, Target::Raw(memory()), &limited(16 << 20), &NoProgress).unwrap();
    // All but the last of eight jobs is paid for.
    assert!(start.elapsed() >= std::time::Duration::from_millis(218));
    let stopping = Patience(AtomicU64::new(6));
    let result = convert(&source, Target::Raw(memory()), &limited(1), &stopping);
    assert!(matches!(result, Err(ConvertError::Cancelled)), "{result:?}");
}
