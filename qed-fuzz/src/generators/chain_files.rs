//! A folder with image files that name each other as backing files: rightly, in circles, through
//! links, out of the folder, by protocols, and in formats that are wrong or not stated.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use qed_convert::NewBacking;
use qed_convert::chain::ImageFormat;
use qed_convert::qcow2::{Qcow2CreateOptions, create_qcow2};
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, GivenBacking, Image, Layout, LockPolicy,
    RecoveryPolicy, WriteContext, create,
};
use qed_io::{Existing, FileStorage, ImageLock, NewFileOptions, Storage};
use qed_spec::{Anchor, BackingName, Geometry, GuestOffset, StoredBackingFormat};
use tempfile::TempDir;

use crate::operation::content;

/// Bytes of a cluster of the QED images.
pub(crate) const CLUSTER: u64 = 4096;
/// The files, in a folder that has a folder.
pub(crate) const FILES: [&str; 5] = ["a", "b", "c", "sub/d", "sub/e"];

/// The first files lie in the folder of the link.
const BESIDE_LINK: usize = 3;

/// Image files and how they name each other.
#[derive(Debug)]
pub(crate) struct ChainFiles {
    root: TempDir,
    pub(crate) files: [File; FILES.len()],
    /// Where the link named `link` leads.
    pub(crate) link: usize,
}

/// One image file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) format: ImageFormat,
    /// What it names as its backing file, and how it says that file's format. None for raw ones.
    pub(crate) backing: Option<(Name, Stated)>,
    /// Clusters of the disk.
    pub(crate) clusters: u64,
    /// Which of them a QED image has itself.
    pub(crate) has: u8,
    /// A QED image stores formats that its header has no bit for.
    stores: bool,
}

/// A backing file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub(crate) enum Name {
    /// One of the files, from the folder of the image.
    Relative(u8),
    /// With steps that lead nowhere.
    Winding(u8),
    Absolute(u8),
    /// With the prefix that QEMU takes for files.
    FilePrefix(u8),
    Link,
    /// The file beside the folder, by its path or by a link in the folder.
    Outside,
    LinkOutside,
    Missing,
    Folder,
    /// Something that is not a path.
    Protocol,
}

/// How an image says the format of its backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub(crate) enum Stated {
    Not,
    Raw,
    Qed,
    Qcow2,
    /// A format that nobody has.
    Unknown,
}

impl ChainFiles {
    /// Makes the files, in memory.
    pub(crate) fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        let root = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs on every Debian");
        let mut files = Vec::new();
        for _ in FILES {
            files.push(file(from)?);
        }
        let files = files.try_into().expect("as many as there are names");
        // Names in an image start from the folder of the name that it was opened by.
        let link = from.choose_index(BESIDE_LINK)?;
        let chain = Self { root, files, link };
        fs::create_dir_all(chain.folder().join("sub")).expect("a new folder");
        fs::write(chain.outside(), content(9, 0..CLUSTER)).expect("room in memory");
        symlink(FILES[link], chain.folder().join("link")).expect("a new link");
        symlink("../outside", chain.folder().join("exit")).expect("a new link");
        for number in 0..FILES.len() {
            chain.make(number);
        }
        Ok(chain)
    }

    /// The folder that the images lie in.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("images")
    }

    pub(crate) fn path(&self, number: usize) -> PathBuf {
        self.folder().join(FILES[number])
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    fn make(&self, number: usize) {
        let file @ File { format, backing, clusters, has, .. } = &self.files[number];
        let name = |name| self.name(number, name).as_os_str().as_bytes().to_vec();
        let image_size = clusters * CLUSTER;
        let new =
            NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
        let storage = Arc::new(FileStorage::create(self.path(number), new).expect("a new file"));
        match format {
            ImageFormat::Raw => {
                let fill = u8::try_from(number).expect("few files");
                fs::write(self.path(number), content(fill, 0..image_size)).expect("room in memory");
            }
            ImageFormat::Qed => {
                let format = |stated| match stated {
                    Stated::Raw => BackingFormat::Raw,
                    _ => BackingFormat::Unstated,
                };
                let backing = backing.map(|(under, stated)| CreateBacking {
                    name: name(under),
                    format: format(stated),
                });
                let geometry = Geometry::new(4096, 1).expect("a legal shape");
                let layout = Layout::Classic;
                let options = CreateOptions { geometry, image_size, backing, layout };
                create(&*storage, &options).expect("a legal image");
                let stated = file.backing.and_then(|(_, stated)| file.stated(stated));
                if let (Some(backing), Some(format)) = (options.backing, stated) {
                    store_format(&storage, &backing.name, format);
                }
                fill(storage, number, *clusters, *has);
            }
            ImageFormat::Qcow2 => {
                let backing = backing.map(|(under, stated)| NewBacking {
                    name: name(under),
                    format: stated.text().map(str::to_owned),
                    len: 0,
                });
                let options = Qcow2CreateOptions { backing, ..Qcow2CreateOptions::new(image_size) };
                create_qcow2(storage, &options).expect("a legal image");
            }
        }
    }

    /// The path that a name is, seen from file `number`.
    fn name(&self, number: usize, name: Name) -> PathBuf {
        let is_below = FILES[number].contains('/');
        let up = Path::new(if is_below { ".." } else { "" });
        let file = |number: u8| FILES[usize::from(number) % FILES.len()];
        match name {
            Name::Relative(to) => up.join(file(to)),
            Name::Winding(to) => up.join("./sub/..").join(file(to)),
            Name::Absolute(to) => self.folder().join(file(to)),
            Name::FilePrefix(to) => {
                format!("file:{}", self.folder().join(file(to)).display()).into()
            }
            Name::Link => up.join("link"),
            Name::Outside => up.join("../outside"),
            Name::LinkOutside => up.join("exit"),
            Name::Missing => up.join("missing"),
            Name::Folder => up.join("sub"),
            Name::Protocol => "nbd:localhost:10809".into(),
        }
    }
}

impl File {
    /// What the image says of the format of its backing file, where `stated` is what it could say.
    pub(crate) fn stated(&self, stated: Stated) -> Option<&'static str> {
        let can_say = self.format == ImageFormat::Qcow2 || self.stores || stated == Stated::Raw;
        stated.text().filter(|_| can_say)
    }
}

impl Stated {
    fn text(self) -> Option<&'static str> {
        match self {
            Self::Not => None,
            Self::Raw => Some("raw"),
            Self::Qed => Some("qed"),
            Self::Qcow2 => Some("qcow2"),
            Self::Unknown => Some("vmdk"),
        }
    }
}

fn file(from: &mut Unstructured<'_>) -> Result<File> {
    let format = *from.choose(&[ImageFormat::Qed, ImageFormat::Qcow2, ImageFormat::Raw])?;
    let (name, stated) = (from.arbitrary()?, from.arbitrary()?);
    let has_backing = format != ImageFormat::Raw && from.ratio(7, 8)?;
    Ok(File {
        format,
        backing: has_backing.then_some((name, stated)),
        clusters: from.int_in_range(1..=5)?,
        has: from.arbitrary()?,
        stores: from.arbitrary()?,
    })
}

/// Stores the format of the backing file in the anchor of a QED image.
fn store_format(storage: &FileStorage, name: &[u8], format: &str) {
    let name = BackingName::new(name).expect("a legal name");
    let stored = StoredBackingFormat::new(format, name).expect("a legal format");
    let anchor = Anchor { backing_format: Some(stored), superblocks: None };
    storage.write_at(&anchor.encode(), Anchor::OFFSET.get()).expect("room in memory");
}

/// Gives a QED image the clusters of a mask.
fn fill(storage: Arc<FileStorage>, number: usize, clusters: u64, has: u8) {
    let context = WriteContext::new(&GivenBacking(None), LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Image::open(storage, &context).expect("it was just made");
    let fill = u8::try_from(number).expect("few files");
    for cluster in (0..clusters).filter(|cluster| has >> cluster & 1 == 1) {
        let bytes = content(fill, cluster * CLUSTER..(cluster + 1) * CLUSTER);
        image.write_at(&bytes, GuestOffset::new(cluster * CLUSTER)).expect("room in memory");
    }
    image.close().expect("room in memory");
}
