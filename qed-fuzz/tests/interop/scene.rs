//! One image on disk, what lies under it and its model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arbitrary::Unstructured;
use qed_check::recovery_hook;
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, GivenBacking, Image, Layout, LockPolicy, RawFile,
    ReadContext, ReadOnlyImage, RecoveryPolicy, RefuseBacking, VirtualDisk, WriteContext, amend,
    create,
};
use qed_fuzz::{
    Answer, ImagePlan, Model, Operation, Under, apply_to_image, assert_clean, assert_reads_as,
    assert_sound, operations, qemu_img, qemu_io, qemu_io_command,
};
use qed_io::{Existing, FileOptions, FileStorage, ImageLock, NewFileOptions, Storage};
use qed_spec::Geometry;
use tempfile::TempDir;

/// Operations that make the content of a backing file.
const BACKING_OPERATIONS: usize = 12;

/// An image file in a folder of its own.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    pub(crate) plan: ImagePlan,
    pub(crate) model: Model,
    beneath: GivenBacking,
    /// The image shrank, or gave space up, which leaves clusters that nothing names.
    has_leaks: bool,
}

impl Scene {
    /// A new image of this plan over a backing file with some content.
    pub(crate) fn new(from: &mut Unstructured<'_>, plan: ImagePlan, under: Under) -> Self {
        // Nothing here is about durability, and a disk would be kept busy by the flushes.
        let folder = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs on every Debian");
        let (beneath, model) = match plan.backing_size {
            None => (GivenBacking(None), Model::new(plan.image_size)),
            Some(size) => {
                let (file, content) = backing(from, folder.path(), under, size);
                (GivenBacking(Some(file)), Model::over(&content, plan.image_size))
            }
        };
        let name = |under| CreateBacking {
            name: b"backing".to_vec(),
            format: if under == Under::Raw { BackingFormat::Raw } else { BackingFormat::Unstated },
        };
        let options = CreateOptions {
            geometry: plan.geometry,
            image_size: plan.image_size,
            backing: plan.backing_size.map(|_| name(under)),
            layout: Layout::Classic,
        };
        create(&new_file(&folder.path().join("image")), &options).unwrap();
        Self { folder, plan, model, beneath, has_leaks: false }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Gives the image another layout; the disk stays.
    pub(crate) fn amend(&self, layout: Layout) {
        let recovery = RecoveryPolicy::Run(&recovery_hook);
        let storage = self.storage(FileOptions::READ_WRITE);
        amend(&storage, layout, LockPolicy::Take, recovery).unwrap();
        // With it goes the lock.
        drop(storage);
        self.assert_agreed();
    }

    /// Opens as a program does that finds marks which QEMU did not keep up.
    fn recover(&self) {
        let context =
            WriteContext::new(&self.beneath, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
        let image = Image::open(self.storage(FileOptions::READ_WRITE), &context).unwrap();
        image.close().unwrap();
    }

    /// A turn of this library.
    pub(crate) fn ours(&mut self, list: &[Operation]) {
        self.assert_reads();
        self.recover();
        let leaves = |size, operation: &Operation| match operation {
            Operation::Resize { size: new } => (*new, *new < size),
            Operation::Unmap { .. } => (size, true),
            _ => (size, false),
        };
        let mut size = self.model.size();
        for operation in list {
            let (after, leaks) = leaves(size, operation);
            self.has_leaks |= leaks;
            size = after;
        }
        let storage = self.storage(FileOptions::READ_WRITE);
        apply_to_image(storage, &self.beneath, list, &mut self.model).unwrap();
    }

    /// A turn of `qemu-io`; all operations are ones it can do.
    pub(crate) fn qemus(&mut self, list: &[Operation]) {
        let command = |(number, operation)| {
            let source = self.folder.path().join(format!("source-{number}"));
            qemu_io_command(operation, &source).unwrap()
        };
        let commands: Vec<String> = list.iter().enumerate().map(command).collect();
        let Answer { code, stdout, stderr } = qemu_io(&["-f", "qed"], &self.image(), &commands);
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""), "{commands:?}");
        for operation in list {
            self.model.apply(operation);
        }
    }

    /// Both read the model, and both find the image in order.
    pub(crate) fn assert_agreed(&self) {
        self.assert_reads();
        let storage = self.storage(FileOptions::READ_ONLY);
        if self.has_leaks {
            assert_sound(&*storage);
        } else {
            assert_clean(&*storage);
        }
        let expected = self.folder.path().join("expected");
        std::fs::write(&expected, self.model.bytes()).unwrap();
        let compare = ["compare", "-f", "qed", "-F", "raw"].map(AsRef::as_ref);
        let (image, expected) = (self.image(), expected);
        qemu_img(compare.into_iter().chain([image.as_os_str(), expected.as_os_str()])).success();
        let check = ["check", "-q", "-f", "qed"].map(AsRef::as_ref);
        let checked = qemu_img(check.into_iter().chain([image.as_os_str()]));
        let leaks_only = self.has_leaks && checked.code == Some(3);
        assert!(checked.code == Some(0) || leaks_only, "{checked:?}");
    }

    fn assert_reads(&self) {
        let context = ReadContext::new(&self.beneath, LockPolicy::Take);
        let image = ReadOnlyImage::open(self.storage(FileOptions::READ_ONLY), &context).unwrap();
        assert_reads_as(&image, &self.model);
    }

    fn storage(&self, options: FileOptions) -> Arc<dyn Storage> {
        Arc::new(FileStorage::open(self.image(), options).unwrap())
    }
}

/// A file named `backing` with random content, and what it reads as.
fn backing(
    from: &mut Unstructured<'_>,
    folder: &Path,
    under: Under,
    size: u64,
) -> (Arc<dyn VirtualDisk>, Model) {
    let geometry = Geometry::new(4096, 2).unwrap();
    let plan = ImagePlan { geometry, image_size: size, backing_size: None };
    let list = operations(from, &plan, BACKING_OPERATIONS).unwrap();
    let fits = |one: &Operation| match one {
        Operation::Resize { .. } => false,
        other => other.range().is_none_or(|range| range.end <= size),
    };
    let list: Vec<Operation> = list.into_iter().filter(fits).collect();
    let path = folder.join("backing");
    let mut model = Model::new(size);
    let file = Arc::new(new_file(&path));
    if under == Under::Raw {
        list.iter().for_each(|operation| model.apply(operation));
        file.write_at(model.bytes(), 0).unwrap();
    } else {
        create(
            &*file,
            &CreateOptions { geometry, image_size: size, backing: None, layout: Layout::Classic },
        )
        .unwrap();
        apply_to_image(file, &GivenBacking(None), &list, &mut model).unwrap();
    }
    let storage = Arc::new(FileStorage::open(&path, FileOptions::READ_ONLY).unwrap());
    let file: Arc<dyn VirtualDisk> = if under == Under::Raw {
        Arc::new(RawFile::open(storage).unwrap())
    } else {
        let context = ReadContext::new(&RefuseBacking, LockPolicy::None);
        Arc::new(ReadOnlyImage::open(storage, &context).unwrap())
    };
    (file, model)
}

fn new_file(path: &Path) -> FileStorage {
    let options =
        NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
    FileStorage::create(path, options).unwrap()
}
