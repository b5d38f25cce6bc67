//! Backing chains: which files they open, in which format, and which they refuse.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qed_convert::chain::{
    Chain, ChainError, ChainOptions, FormatSource, ImageFormat, Layer, MAX_CHAIN_DEPTH, TrustMagic,
};
use qed_convert::qcow2::Qcow2SnapshotSelector;
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, Image, LockPolicy, OpenError, RecoveryPolicy,
    WriteContext, create,
};
use qed_io::{FileOptions, FileStorage, ImageLock, MemoryStorage, Storage};
use qed_spec::{
    Epoch, Generation, GuestOffset, ImageUuid, SectionType, SuperblockBuilder, SuperblockCopy,
};

use crate::lab::assert_same;
use crate::qcow2_lab::{Lab, bytes_of};

use ImageFormat::{Qcow2, Qed, Raw};

const STATED_QED: FormatSource = FormatSource::Stated(Qed);
const STATED_QCOW2: FormatSource = FormatSource::Stated(Qcow2);

/// Creates the QED image `name` over `backing`.
fn qed_over(lab: &Lab, name: &str, backing: &str, format: BackingFormat) {
    let mut options = CreateOptions::new(1 << 20);
    options.backing = Some(CreateBacking { name: backing.as_bytes().to_vec(), format });
    let image = MemoryStorage::default();
    create(&image, &options).expect("a legal image");
    fs::write(lab.path(name), image.to_vec()).expect("room in /tmp");
}

fn walk(lab: &Lab, format: FormatSource, options: &ChainOptions) -> Result<Chain, ChainError> {
    Chain::walk(&lab.path("top"), format, options)
}

#[track_caller]
fn refused(lab: &Lab, format: FormatSource, options: &ChainOptions) -> ChainError {
    let start = Instant::now();
    let error = walk(lab, format, options).expect_err("a chain that is refused");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    error
}

fn stating(formats: &[ImageFormat]) -> ChainOptions {
    ChainOptions { backing_formats: formats.to_vec(), ..ChainOptions::default() }
}

#[test]
fn chains_of_every_format_read_as_qemu_reads_them() {
    let lab = Lab::new();
    lab.run(
        "convert -O qed source.raw a.qed
         create -q -f qcow2 -F qed -b a.qed b.qcow2 4M
         io b.qcow2 write -P 1 1M 5k
         create -q -f qcow2 -F qcow2 -b b.qcow2 top
         io top write -P 2 2M 5k",
    );
    let chain = walk(&lab, STATED_QCOW2, &ChainOptions::default()).expect("a good chain");
    let formats: Vec<_> = chain.layers().iter().map(Layer::format).collect();
    assert_eq!(formats, [Qcow2, Qcow2, Qed]);
    let names: Vec<_> = chain.layers().iter().map(|layer| layer.path().to_path_buf()).collect();
    assert_eq!(names, ["top", "b.qcow2", "a.qed"].map(|name| lab.path(name)));
    let disk = chain.open(None).expect("good images");
    assert_same(&bytes_of(&*disk, 1 << 16), &lab.qemu_bytes("top", "-f qcow2"), "the chain");
}

#[test]
fn a_snapshot_of_the_top_reads_through_the_chain() {
    let lab = Lab::new();
    lab.run(
        "create -q -f qcow2 -F raw -b source.raw top
         snapshot -c before top
         io top write -P 2 0 1M",
    );
    let chain = walk(&lab, STATED_QCOW2, &ChainOptions::default()).expect("a good chain");
    let before = Qcow2SnapshotSelector::parse(b"before");
    let disk = chain.open(before.as_ref()).expect("a good snapshot");
    let source = fs::read(lab.path("source.raw")).expect("written by the lab");
    assert_same(&bytes_of(&*disk, 1 << 16), &source, "the snapshot");
    qed_over(&lab, "top", "source.raw", BackingFormat::Raw);
    let chain = walk(&lab, STATED_QED, &ChainOptions::default()).expect("a good chain");
    let error = chain.open(before.as_ref()).expect_err("QED has no snapshots");
    assert!(matches!(error, ChainError::NoSnapshots { format: Qed, .. }), "{error}");
}

// spec-test: QED-BACK-05
#[test]
fn a_format_that_nobody_states_is_not_guessed() {
    let lab = Lab::new();
    lab.run("create -q -f qcow2 base 1M");
    qed_over(&lab, "top", "base", BackingFormat::Unstated);
    let error = refused(&lab, STATED_QED, &ChainOptions::default());
    assert!(matches!(error, ChainError::FormatUnstated { .. }), "{error}");
    let text = error.to_string();
    for way_out in ["--backing-format", "--backing-dir", "--trust-magic"] {
        assert!(text.contains(way_out), "{text}");
    }

    for format in [Raw, Qcow2] {
        let chain = walk(&lab, STATED_QED, &stating(&[format])).expect("a good chain");
        assert_eq!(chain.layers()[1].format(), format);
        assert!(!chain.layers()[1].is_recognised());
    }
    // Magic speaks against a format, and never for another one.
    let error = refused(&lab, STATED_QED, &stating(&[Qed]));
    assert!(matches!(error, ChainError::NotInFormat { format: Qed, .. }), "{error}");
    assert!(error.to_string().ends_with("is not in qed format"), "{error}");
}

/// The CRC-32C of the name `base`.
const BASE: u32 = 0xd76a_31f9;

/// Stores `format` in copy A of the superblock of `top`, for the backing file with a name of this
/// checksum.
fn store_format(lab: &Lab, name_crc32c: u32, format: &str) {
    let payload = [&name_crc32c.to_le_bytes(), format.as_bytes()].concat();
    let mut builder = SuperblockBuilder::new(ImageUuid::new([7; 16]), Epoch::new(9));
    builder.set_section(SectionType::BACKING_FORMAT, &payload).expect("room for it");
    let top = FileStorage::open(lab.path("top"), FileOptions::READ_WRITE).expect("made before");
    let copy = builder.encode(Generation::FIRST);
    top.write_at(&copy, SuperblockCopy::A.offset().get()).expect("inside the header area");
}

// spec-test: QED-BACK-05, QED-SB-15
#[test]
fn a_stored_format_comes_before_the_callers_and_holds_for_one_name() {
    let lab = Lab::new();
    lab.run("create -q -f qcow2 base 1M");
    qed_over(&lab, "top", "base", BackingFormat::Unstated);
    for (format, expected) in [("qcow2", Qcow2), ("raw", Raw)] {
        store_format(&lab, BASE, format);
        for options in [ChainOptions::default(), stating(&[Qed])] {
            let chain = walk(&lab, STATED_QED, &options).expect("a good chain");
            assert_eq!(chain.layers()[1].format(), expected);
            assert_eq!(chain.layers()[0].backing_format(), Some(format.as_bytes()));
        }
    }
    // What an image stores counts as well if it was only recognised, but the caller's word more.
    store_format(&lab, BASE, "qcow2");
    for (options, expected) in [(ChainOptions::default(), Qcow2), (stating(&[Raw]), Raw)] {
        let chain = walk(&lab, FormatSource::Magic, &options).expect("a good chain");
        assert_eq!(chain.layers()[1].format(), expected);
    }

    store_format(&lab, !BASE, "raw");
    let error = refused(&lab, STATED_QED, &ChainOptions::default());
    assert!(matches!(error, ChainError::FormatUnstated { .. }), "{error}");
    store_format(&lab, BASE, "vmdk");
    let error = refused(&lab, STATED_QED, &stating(&[Raw]));
    assert!(matches!(error, ChainError::FormatUnknown { .. }), "{error}");
    store_format(&lab, BASE, "RAW");
    let error = refused(&lab, STATED_QED, &stating(&[Raw]));
    assert!(matches!(error, ChainError::StoredFormat { .. }), "{error}");
}

/// Trust in what lies near the image that names it.
fn near(folders: &[PathBuf]) -> ChainOptions {
    let trust_magic = TrustMagic::Near(folders.to_vec());
    ChainOptions { trust_magic, ..ChainOptions::default() }
}

fn always() -> ChainOptions {
    ChainOptions { trust_magic: TrustMagic::Always, ..ChainOptions::default() }
}

#[test]
fn a_raw_backing_file_is_raw_whatever_the_guest_wrote_into_it() {
    let lab = Lab::new();
    lab.run("create -q -u -f qcow2 -F raw -b /etc/passwd base 1M");
    qed_over(&lab, "top", "base", BackingFormat::Raw);
    for options in [ChainOptions::default(), near(&[]), always()] {
        let chain = walk(&lab, STATED_QED, &options).expect("a good chain");
        assert_eq!(chain.layers().len(), 2);
        assert_eq!(chain.layers()[1].format(), Raw);
    }
}

// spec-test: QED-BACK-05
#[test]
fn magic_is_trusted_near_the_image_or_in_folders_that_the_caller_names() {
    let lab = Lab::new();
    for folder in ["images", "images/below", "other"] {
        fs::create_dir(lab.path(folder)).expect("a folder");
    }
    lab.run("create -q -f qcow2 images/base 1M");
    for copy in ["images/below/base", "other/base"] {
        fs::copy(lab.path("images/base"), lab.path(copy)).expect("room in /tmp");
    }
    symlink("../other/base", lab.path("images/out")).expect("a link");
    symlink("../other", lab.path("images/way-out")).expect("a link");
    symlink("../images/base", lab.path("other/back")).expect("a link");
    let other = lab.path("other/base").display().to_string();
    let cases = [
        ("base", true),
        ("below/base", true),
        ("below/../base", true),
        ("../images/base", true),
        ("../other/back", true),
        ("../other/base", false),
        ("out", false),
        ("way-out/base", false),
        (other.as_str(), false),
    ];
    for (name, is_near) in cases {
        qed_over(&lab, "images/top", name, BackingFormat::Unstated);
        let walk = |options| Chain::walk(&lab.path("images/top"), STATED_QED, &options);
        match walk(near(&[])) {
            Ok(chain) => assert!(is_near && chain.layers()[1].format() == Qcow2, "{name}"),
            Err(ChainError::FormatUnstated { .. }) => assert!(!is_near, "{name}"),
            Err(error) => panic!("{name}: {error}"),
        }
        assert!(walk(near(&[lab.path("other")])).is_ok(), "{name}");
        assert!(walk(near(&[lab.path("images/way-out")])).is_ok(), "{name}");
        assert_eq!(walk(near(&[lab.path("images/below")])).is_ok(), is_near, "{name}");
        assert!(walk(always()).is_ok(), "{name}");
    }
    qed_over(&lab, "images/top", "gone", BackingFormat::Unstated);
    let error = Chain::walk(&lab.path("images/top"), STATED_QED, &near(&[]));
    assert!(matches!(error, Err(ChainError::Open { .. })), "{error:?}");
}

#[test]
fn trust_in_magic_reaches_every_level() {
    let lab = Lab::new();
    qed_over(&lab, "top", "middle", BackingFormat::Unstated);
    qed_over(&lab, "middle", "base", BackingFormat::Unstated);
    // A file without magic is raw, and names nothing.
    fs::copy(lab.path("source.raw"), lab.path("base")).expect("room in /tmp");
    for options in [near(&[]), always()] {
        for top in [STATED_QED, FormatSource::Magic] {
            let chain = walk(&lab, top, &options).expect("a good chain");
            let formats: Vec<_> = chain.layers().iter().map(Layer::format).collect();
            assert_eq!(formats, [Qed, Qed, Raw]);
            assert!(chain.layers()[1].is_recognised());
        }
    }
    let error = refused(&lab, STATED_QED, &stating(&[Qed]));
    assert!(matches!(error, ChainError::FormatUnstated { .. }), "{error}");
    // A format that is stated is followed anywhere, and below it the rule is the same again.
    fs::create_dir(lab.path("far")).expect("a folder");
    qed_over(&lab, "far/middle", "base", BackingFormat::Unstated);
    fs::copy(lab.path("source.raw"), lab.path("far/base")).expect("room in /tmp");
    qed_over(&lab, "top", "far/middle", BackingFormat::Unstated);
    let options = ChainOptions { backing_formats: vec![Qed], ..near(&[]) };
    let chain = walk(&lab, STATED_QED, &options).expect("a good chain");
    assert_eq!(chain.layers()[2].path(), lab.path("far/base"));
}

#[test]
fn a_format_that_is_not_read_is_refused_by_name() {
    let lab = Lab::new();
    lab.run("create -q -u -f qcow2 -F vmdk -b source.raw top 1M");
    let error = refused(&lab, STATED_QCOW2, &ChainOptions::default());
    assert!(
        matches!(&error, ChainError::FormatUnknown { format, .. } if format == "vmdk"),
        "{error}"
    );
}

// spec-test: QED-BACK-07
#[test]
fn names_that_are_no_plain_paths_to_disks_are_refused() {
    let lab = Lab::new();
    fs::create_dir(lab.path("folder")).expect("a folder");
    let made = Command::new("mkfifo").arg(lab.path("pipe")).status().expect("mkfifo of coreutils");
    assert!(made.success());
    for (name, text) in [
        ("json:{}", "unknown protocol 'json'"),
        ("nbd:localhost:10809", "unknown protocol 'nbd'"),
        ("https://example.invalid/x", "unknown protocol 'https'"),
        ("missing", "could not open"),
        ("folder", "could not open"),
        ("pipe", "could not open"),
        ("/dev/null", "could not open"),
    ] {
        qed_over(&lab, "top", name, BackingFormat::Raw);
        let error = refused(&lab, STATED_QED, &ChainOptions::default());
        assert!(error.to_string().contains(text), "{name}: {error}");
    }
    let absolute = format!("file:{}", lab.path("source.raw").display());
    qed_over(&lab, "top", &absolute, BackingFormat::Raw);
    assert!(walk(&lab, STATED_QED, &ChainOptions::default()).is_ok());
}

#[test]
fn loops_end_at_once() {
    let lab = Lab::new();
    let options = stating(&[Qed; MAX_CHAIN_DEPTH]);
    let is_loop = |case: &str| {
        let error = refused(&lab, STATED_QED, &options);
        assert!(matches!(error, ChainError::Loop { .. }), "{case}: {error}");
        assert!(error.to_string().ends_with("creates an infinite loop"), "{error}");
    };
    qed_over(&lab, "top", "top", BackingFormat::Unstated);
    is_loop("itself");
    symlink("top", lab.path("other")).expect("a link");
    qed_over(&lab, "top", "other", BackingFormat::Unstated);
    is_loop("itself through a link");
    fs::hard_link(lab.path("top"), lab.path("same")).expect("a hard link");
    qed_over(&lab, "top", "same", BackingFormat::Unstated);
    is_loop("itself by another name");
    qed_over(&lab, "a", "b", BackingFormat::Unstated);
    qed_over(&lab, "b", "a", BackingFormat::Unstated);
    qed_over(&lab, "top", "a", BackingFormat::Unstated);
    is_loop("two below");
}

#[test]
fn the_longest_chain_reads_and_a_longer_one_is_refused() {
    let lab = Lab::new();
    qed_over(&lab, "0", "source.raw", BackingFormat::Raw);
    for number in 1..=MAX_CHAIN_DEPTH {
        let below = (number - 1).to_string();
        qed_over(&lab, &number.to_string(), &below, BackingFormat::Unstated);
    }
    let options =
        ChainOptions { backing_formats: vec![Qed; MAX_CHAIN_DEPTH - 1], ..ChainOptions::default() };
    let path = |number: usize| lab.path(&number.to_string());
    let longest = Chain::walk(&path(MAX_CHAIN_DEPTH - 1), STATED_QED, &options);
    let longest = longest.expect("as long as allowed");
    assert_eq!(longest.layers().len(), MAX_CHAIN_DEPTH + 1);
    let disk = longest.open(None).expect("good images");
    let source = fs::read(lab.path("source.raw")).expect("written by the lab");
    assert_same(&bytes_of(&*disk, 1 << 16), &source[..1 << 20], "through 200 images");
    let options = stating(&[Qed; MAX_CHAIN_DEPTH]);
    let error = Chain::walk(&path(MAX_CHAIN_DEPTH), STATED_QED, &options);
    let error = error.expect_err("one too many");
    assert!(matches!(error, ChainError::TooDeep { limit: MAX_CHAIN_DEPTH }), "{error}");
}

#[test]
fn confined_chains_stay_in_their_folder() {
    let lab = Lab::new();
    fs::create_dir(lab.path("inside")).expect("a folder");
    fs::copy(lab.path("source.raw"), lab.path("inside/base")).expect("room in /tmp");
    symlink("../source.raw", lab.path("inside/out")).expect("a link");
    symlink("base", lab.path("inside/in")).expect("a link");
    let options = ChainOptions { confine_to: Some(lab.path("inside")), ..ChainOptions::default() };
    let absolute = lab.path("source.raw").display().to_string();
    for (name, stays) in [
        ("base", true),
        ("in", true),
        ("../inside/base", true),
        ("../source.raw", false),
        ("out", false),
        (absolute.as_str(), false),
        ("/etc/passwd", false),
    ] {
        qed_over(&lab, "inside/top", name, BackingFormat::Raw);
        let chain = Chain::walk(&lab.path("inside/top"), STATED_QED, &options);
        match chain {
            Ok(chain) => assert!(stays && chain.layers().len() == 2, "{name}"),
            Err(ChainError::OutsideFolder { .. }) => assert!(!stays, "{name}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

// spec-test: QED-BACK-08
#[test]
fn every_image_of_a_chain_is_locked_for_reading() {
    let lab = Lab::new();
    qed_over(&lab, "top", "source.raw", BackingFormat::Raw);
    let base = || FileStorage::open(lab.path("source.raw"), FileOptions::READ_WRITE).expect("here");
    {
        let writer = base();
        writer.lock(ImageLock::WRITE).expect("nobody holds it");
        let error = refused(&lab, STATED_QED, &ChainOptions::default());
        let path: PathBuf = lab.path("source.raw");
        assert!(matches!(&error, ChainError::Lock { path: at, .. } if *at == path), "{error}");
        let unlocked = ChainOptions { lock: LockPolicy::None, ..ChainOptions::default() };
        assert!(walk(&lab, STATED_QED, &unlocked).is_ok());
    }
    let chain = walk(&lab, STATED_QED, &ChainOptions::default()).expect("nobody writes");
    assert!(base().lock(ImageLock::WRITE).is_err());
    drop(chain);
    assert!(base().lock(ImageLock::WRITE).is_ok());
}

#[test]
fn a_writable_overlay_gets_its_chain_from_the_gate() {
    let lab = Lab::new();
    qed_over(&lab, "top", "source.raw", BackingFormat::Raw);
    let storage = FileStorage::open(lab.path("top"), FileOptions::READ_WRITE).expect("just made");
    let storage = Arc::new(storage);
    let top = Layer::from_storage(&lab.path("top"), Arc::clone(&storage), STATED_QED);
    let chain = Chain::below(top.expect("a good image"), &ChainOptions::default());
    let gate = chain.expect("a good chain").gate().expect("good images");
    let context = WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Refuse);
    let image = Image::open(Arc::<FileStorage>::clone(&storage), &context).expect("a good image");
    image.write_at(&[7; 512], GuestOffset::new(4096)).expect("room in /tmp");
    let mut bytes = vec![0; 8192];
    image.read_at(&mut bytes, GuestOffset::new(0)).expect("a good chain");
    let mut expected = fs::read(lab.path("source.raw")).expect("written by the lab");
    expected[4096..4608].fill(7);
    assert_same(&bytes, &expected[..8192], "over the chain");
    image.close().expect("room in /tmp");
}

#[test]
fn the_gate_serves_no_other_name_than_the_one_it_followed() {
    let lab = Lab::new();
    qed_over(&lab, "top", "source.raw", BackingFormat::Raw);
    let gate = walk(&lab, STATED_QED, &ChainOptions::default())
        .and_then(|chain| chain.gate())
        .expect("a good chain");
    qed_over(&lab, "top", "other.raw", BackingFormat::Raw);
    let storage = open_file(&lab.path("top"));
    let context = WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Refuse);
    let error = Image::open(storage, &context).expect_err("another backing file");
    assert!(matches!(error, OpenError::Gate { .. }), "{error}");
}

fn open_file(path: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(path, FileOptions::READ_WRITE).expect("just made"))
}
