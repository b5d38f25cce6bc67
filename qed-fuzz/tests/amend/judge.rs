//! What must hold of an image whose amend was interrupted.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::Arc;

use qed_check::{CheckOptions, check, recovery_hook};
use qed_core::{
    Consistency, Image, Layout, LockPolicy, ReadContext, ReadOnlyImage, RecoveryPolicy,
    VirtualDisk, WriteContext,
};
use qed_fuzz::{
    CrashState, Model, SparseContent, SparseStorage, Subject, qemu_img, same_disk, told,
};
use qed_io::Storage;
use qed_spec::{ConsistencyMode, Features, GuestOffset};

use crate::scene::{Scene, amend_on};

/// An amend of the image of a scene; a state turns out to be finished or not.
pub(crate) struct Amend<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) to: Layout,
}

impl Subject for Amend<'_> {
    type Kind = bool;

    fn make(&self) -> SparseContent {
        self.scene.start.clone()
    }

    fn run(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        amend_on(storage, self.to).map_err(told("amend"))
    }

    fn recover(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        amend_on(storage, self.to).map_err(told("another amend"))
    }

    fn judge(&self, state: &CrashState) -> Result<bool, String> {
        let read = ReadContext::new(&self.scene.gate, LockPolicy::None);
        let shown = ReadOnlyImage::open(state.disk(), &read).map_err(told("reading"))?;
        reads_as(&shown, &self.scene.model)?;
        // Another amend finishes at once,
        let amended = state.disk();
        self.finish(&amended, &self.scene.model)?;
        // or after the guest went on.
        let written = state.disk();
        let model = write(self.scene, written.clone())?;
        self.finish(&written, &model)?;
        Ok(amended.content() == state.content)
    }
}

impl Amend<'_> {
    fn finish(&self, disk: &Arc<SparseStorage>, model: &Model) -> Result<(), String> {
        self.recover(disk.clone())?;
        let mode = Consistency::read(&**disk).map_err(told("the mode"))?.mode();
        if mode != mode_of(self.to) {
            return Err(format!("another amend left {mode:?}"));
        }
        is_sound(&**disk)?;
        let context = WriteContext::new(&self.scene.gate, LockPolicy::Take, RecoveryPolicy::Refuse);
        let image =
            Image::open(disk.clone(), &context).map_err(told("opening what was amended"))?;
        reads_as(&image, model)
    }
}

/// Whether QEMU opens an image of this shape, and as it is: one that was not closed it repairs or
/// refuses.
pub(crate) fn is_for_qemu(scene: &Scene, state: &SparseContent) -> bool {
    let mut features = [0; 8];
    state.read(&mut features, 16);
    let backing = Features::BACKING_FILE | Features::BACKING_FORMAT_NO_PROBE;
    let is_closed = backing.contains(Features::from_bits_retain(u64::from_le_bytes(features)));
    scene.geometry.opens_in_qemu() && is_closed
}

/// QEMU finds nothing but leaks, and reads the disk.
pub(crate) fn by_qemu(scene: &Scene, state: &SparseContent) -> Result<(), String> {
    let folder = tempfile::tempdir_in("/dev/shm").map_err(|error| error.to_string())?;
    let file = |name: &str| folder.path().join(name);
    fs::write(file("image"), state.to_vec()).map_err(told("writing"))?;
    fs::write(file("expected"), scene.model.bytes()).map_err(told("writing"))?;
    if let Some(below) = &scene.below {
        fs::write(file("base"), below).map_err(told("writing"))?;
    }
    let [image, expected] = ["image", "expected"].map(|name| file(name).into_os_string());
    let checked = qemu_img(["check", "-q", "-f", "qed"].map(Into::into).iter().chain([&image]));
    if !matches!(checked.code, Some(0 | 3)) {
        return Err(format!("qemu-img check: {checked:?}"));
    }
    let compare = ["compare", "-q", "-f", "qed", "-F", "raw"].map(Into::into);
    let compared = qemu_img(compare.iter().chain([&image, &expected]));
    if compared.code == Some(0) { Ok(()) } else { Err(format!("qemu-img compare: {compared:?}")) }
}

/// Writes sectors all over the disk; the disk afterwards.
fn write(scene: &Scene, storage: Arc<dyn Storage>) -> Result<Model, String> {
    let context =
        WriteContext::new(&scene.gate, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
    let image = Image::open(storage.clone(), &context).map_err(told("opening"))?;
    reads_as(&image, &scene.model)?;
    let mut bytes = scene.model.bytes().to_vec();
    let step = bytes.len() / 6 / 512 * 512;
    for (number, at) in (1..).zip((0..bytes.len() - 511).step_by(step.max(512))) {
        bytes[at..at + 512].fill(number);
        image.write_at(&[number; 512], GuestOffset::new(at as u64)).map_err(told("a write"))?;
    }
    image.flush().map_err(told("a flush"))?;
    image.close().map_err(told("closing"))?;
    is_sound(&*storage)?;
    Ok(Model::of(bytes))
}

fn reads_as(image: &dyn VirtualDisk, model: &Model) -> Result<(), String> {
    let mut bytes = vec![0xee; model.bytes().len()];
    image.read_at(&mut bytes, 0).map_err(told("reading"))?;
    same_disk(&bytes, model.bytes())
}

fn is_sound(storage: &dyn Storage) -> Result<(), String> {
    let mut options = CheckOptions::default();
    options.threads = NonZeroUsize::new(1);
    let report = check(storage, &options).map_err(told("the check"))?;
    if report.corruptions() > 0 || report.dirty {
        return Err(format!("the check finds {:?}", report.findings));
    }
    Ok(())
}

fn mode_of(layout: Layout) -> Option<ConsistencyMode> {
    match layout {
        Layout::Classic => None,
        Layout::Compat(_) => Some(ConsistencyMode::Compat),
        Layout::Journal { .. } => Some(ConsistencyMode::Journal),
    }
}
