//! Folders, shapes, and images on disk made and opened by this workspace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use qed_check::{CheckOptions, Report, check};
use qed_convert::NoProgress;
use qed_convert::chain::{Chain, ChainOptions, FormatSource, ImageFormat, TrustMagic};
use qed_convert::compare::{CompareOptions, Comparison, compare};
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, Image, Layout, LockPolicy, RawFile,
    RecoveryPolicy, VirtualDisk, WriteContext, create,
};
use qed_fuzz::{Operation, apply, content};
use qed_io::{Existing, FileOptions, FileStorage, ImageLock, NewFileOptions, Storage};
use qed_spec::Geometry;
use tempfile::TempDir;

/// A folder of a test. It lies in memory: nothing here is about durability.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs on every Debian"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// What an image lies over. The file is called `backing` and lies beside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    Nothing,
    Raw,
    Qed,
}

impl Under {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::Raw, Self::Qed];

    /// QEMU's name of the format.
    pub(crate) fn format(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Raw => Some("raw"),
            Self::Qed => Some("qed"),
        }
    }

    pub(crate) fn to_create(self) -> Option<CreateBacking> {
        let format = match self {
            Self::Nothing => return None,
            Self::Raw => BackingFormat::Raw,
            Self::Qed => BackingFormat::Unstated,
        };
        Some(CreateBacking { name: b"backing".to_vec(), format })
    }
}

/// All 75 legal shapes.
pub(crate) fn shapes() -> impl Iterator<Item = Geometry> {
    (12..=26).flat_map(|bits| {
        [1, 2, 4, 8, 16].map(|tables| Geometry::new(1 << bits, tables).expect("a legal shape"))
    })
}

/// The options that tell `qemu-img create` the shape.
pub(crate) fn shape_option(geometry: Geometry) -> String {
    let (cluster, table) = (geometry.cluster_size_bytes(), geometry.table_size_clusters());
    format!("cluster_size={cluster},table_size={table}")
}

/// A new image made here.
pub(crate) fn create_image(path: &Path, geometry: Geometry, image_size: u64, under: Under) {
    let options =
        CreateOptions { geometry, image_size, backing: under.to_create(), layout: Layout::Classic };
    create(&new_file(path), &options).unwrap();
}

/// Opens an image for writing, with what its name says lies under it.
pub(crate) fn open_for_writing(path: &Path) -> Image {
    let gate = chain(path).gate().unwrap();
    let storage = Arc::new(FileStorage::open(path, FileOptions::READ_WRITE).unwrap());
    let context = WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Refuse);
    Image::open(storage, &context).unwrap()
}

/// Closes the image and lets go of its file, so that others may lock it.
pub(crate) fn close(image: Image) {
    image.close().unwrap();
}

/// Does the operations to an image and closes it.
pub(crate) fn write_image(path: &Path, operations: &[Operation]) {
    let image = open_for_writing(path);
    for operation in operations {
        apply(&image, operation).unwrap();
    }
    close(image);
}

/// Does the operations to a raw disk, which stays sparse.
pub(crate) fn write_raw(path: &Path, operations: &[Operation]) {
    let file = FileStorage::open(path, FileOptions::READ_WRITE).unwrap();
    for operation in operations {
        match operation {
            Operation::Write { range, fill } => {
                file.write_at(&content(*fill, range.clone()), range.start).unwrap();
            }
            Operation::WriteZeroes { range } => file.write_zeroes(range.clone()).unwrap(),
            other => panic!("{other:?} changes no raw disk"),
        }
    }
}

/// A new raw disk, all hole.
pub(crate) fn create_raw(path: &Path, size: u64) {
    new_file(path).set_len(size).unwrap();
}

/// The virtual disk of an image and all below it.
pub(crate) fn open(path: &Path) -> Arc<dyn VirtualDisk> {
    chain(path).open(None).unwrap()
}

/// The virtual disk of a raw file.
pub(crate) fn open_raw(path: &Path) -> Arc<dyn VirtualDisk> {
    Arc::new(
        RawFile::open(Arc::new(FileStorage::open(path, FileOptions::READ_ONLY).unwrap())).unwrap(),
    )
}

/// What a check finds.
pub(crate) fn checked(path: &Path) -> Report {
    let storage = FileStorage::open(path, FileOptions::READ_ONLY).unwrap();
    check(&storage, &CheckOptions::default()).unwrap()
}

/// The two disks are of one size and read alike.
#[track_caller]
pub(crate) fn assert_equal(found: &dyn VirtualDisk, expected: &dyn VirtualDisk) {
    assert_eq!(found.len(), expected.len(), "size of the disk");
    let comparison = compare(found, expected, &CompareOptions::default(), &NoProgress).unwrap();
    assert_eq!(comparison, Comparison::Identical);
}

/// A 64-bit number of a file.
pub(crate) fn number_at(image: &Path, at: u64) -> u64 {
    let mut bytes = [0; 8];
    FileStorage::open(image, FileOptions::READ_ONLY).unwrap().read_at(&mut bytes, at).unwrap();
    u64::from_le_bytes(bytes)
}

/// Overwrites a 64-bit number of a file.
pub(crate) fn set_number(image: &Path, at: u64, value: u64) {
    let storage = FileStorage::open(image, FileOptions::READ_WRITE).unwrap();
    storage.write_at(&value.to_le_bytes(), at).unwrap();
}

/// Words of a command line of which some are paths.
pub(crate) fn words<'a>(
    options: &'a [&'a str],
    paths: &'a [PathBuf],
) -> impl Iterator<Item = &'a OsStr> {
    options.iter().map(OsStr::new).chain(paths.iter().map(AsRef::as_ref))
}

fn chain(path: &Path) -> Chain {
    let stated = FormatSource::Stated(ImageFormat::Qed);
    // A backing file of unstated format is one of ours here.
    let options = ChainOptions {
        trust_magic: TrustMagic::Always,
        lock: LockPolicy::None,
        ..ChainOptions::default()
    };
    Chain::walk(path, stated, &options).unwrap()
}

fn new_file(path: &Path) -> FileStorage {
    let options =
        NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
    FileStorage::create(path, options).unwrap()
}

/// The program; cargo names it to the tests of its own package only, and `./test` to these.
pub(crate) static QED: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(program) = std::env::var_os("QED_PROGRAM") {
        return program.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // The whole workspace decides about features, so that nothing is built twice.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--workspace", "--bin", "qed"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "qed cannot be built");
    target.join("debug/qed")
});
