//! Whether a state is what it may be, and whether every way goes on from it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use qed_check::{CheckOptions, check};
use qed_convert::in_place::{InPlaceError, Refusal, undo};
use qed_core::{LockPolicy, ReadContext, ReadOnlyImage};
use qed_fuzz::{CrashState, SparseContent, SparseStorage, Subject, same_disk};
use qed_io::{FileOptions, FileStorage, Storage};
use qed_spec::{AutoclearFeatures, GuestOffset};

use crate::scene::{Act, Scene, WRITTEN};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Qcow2,
    Qed,
}

/// Something that is done to the file of a scene.
pub(crate) struct Interrupted<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) start: SparseContent,
    pub(crate) act: Act,
}

impl Subject for Interrupted<'_> {
    type Kind = Format;

    fn make(&self) -> SparseContent {
        self.start.clone()
    }

    fn run(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        self.scene.act_on(storage, self.act)
    }

    /// A QCOW2 image is converted, again or for the first time.
    fn recover(&self, storage: Arc<dyn Storage>) -> Result<(), String> {
        self.scene.act_on(storage, Act::Convert)
    }

    fn judge(&self, state: &CrashState) -> Result<Format, String> {
        let mut magic = [0; 4];
        state.content.read(&mut magic, 0);
        match &magic {
            b"QFI\xfb" => self.judge_qcow2(state).map(|()| Format::Qcow2),
            b"QED\0" => judge_qed(self.scene, state).map(|()| Format::Qed),
            _ => Err(format!("the file begins with {magic:02x?}")),
        }
    }
}

impl Interrupted<'_> {
    fn judge_qcow2(&self, state: &CrashState) -> Result<(), String> {
        let scene = self.scene;
        same_disk(&scene.read_qcow2(&state.content)?, &scene.disk)?;
        // Taken back, it is what it was; nothing to take back is in what it is already.
        let disk = state.disk();
        let storage: Arc<dyn Storage> = disk.clone();
        match undo(&storage) {
            Ok(()) | Err(InPlaceError::Refused(Refusal::NothingToUndo)) => {}
            Err(error) => return Err(format!("undo: {error}")),
        }
        if disk.content() != scene.start {
            return Err("taken back, the QCOW2 image is not what it was".to_owned());
        }
        // Converted again, it shows the same disk.
        let disk = state.disk();
        self.recover(disk.clone())?;
        judge_disk(scene, &disk, false)
    }
}

fn judge_qed(scene: &Scene, state: &CrashState) -> Result<(), String> {
    let disk = state.disk();
    let may_undo = may_undo(&disk);
    judge_disk(scene, &disk, !may_undo)?;
    if !may_undo {
        return Ok(());
    }
    scene.act_on(disk.clone(), Act::Undo)?;
    if disk.content() != scene.start {
        return Err("undone, the image is not what it was".to_owned());
    }
    Ok(())
}

/// Whether the conversion can still be undone.
fn may_undo(storage: &SparseStorage) -> bool {
    let mut autoclear = [0; 8];
    storage.read_at(&mut autoclear, 32).unwrap();
    u64::from_le_bytes(autoclear) & AutoclearFeatures::CONVERSION_UNDO.bits() != 0
}

/// The disk of the QED image, in which the first write may have been done.
fn judge_disk(scene: &Scene, storage: &Arc<SparseStorage>, written: bool) -> Result<(), String> {
    let report = check(&**storage, &CheckOptions::default()).map_err(|error| error.to_string())?;
    if report.corruptions() > 0 || (report.unnamed_clusters() > 0 && !written) {
        return Err(format!("check: {:?}", report.findings));
    }
    let gate = scene.gate();
    let context = ReadContext::new(&gate, LockPolicy::None);
    let image = ReadOnlyImage::open(storage.clone(), &context).map_err(|it| it.to_string())?;
    let mut disk = vec![0; scene.disk.len()];
    image.read_at(&mut disk, GuestOffset::new(0)).map_err(|error| error.to_string())?;
    // Each sector of a write is there or is not.
    let written = if written { scene.first_writes().to_vec() } else { Vec::new() };
    for at in written.into_iter().flat_map(|range| range.step_by(512)) {
        if disk[at..at + 512] == WRITTEN {
            disk[at..at + 512].copy_from_slice(&scene.disk[at..at + 512]);
        }
    }
    same_disk(&disk, &scene.disk)
}

/// QEMU writes to the image, and grows it; then it is converted, or taken back.
pub(crate) fn qemu_goes_on(scene: &Scene, file: &Path, case: &str) {
    let sh = |script: &str| {
        let folder = file.parent().unwrap();
        let ran = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
        let (out, said) =
            (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{case}: {script}: {out}{said}");
    };
    if scene.name.starts_with("over qcow2") {
        // What lies below is raw, whatever the image says: QEMU cannot go on.
        return;
    }
    sh("qemu-io -f qcow2 -c 'write -P 9 200k 100k' t");
    sh("cp t converted; cp t grown; qemu-img convert -f qcow2 -O raw t expected");
    let open = |name: &str| -> Arc<dyn Storage> {
        let path = file.with_file_name(name);
        Arc::new(FileStorage::open(&path, FileOptions::READ_WRITE).unwrap())
    };
    let converted = scene.act_on(open("converted"), Act::Convert);
    converted.unwrap_or_else(|problem| panic!("{case}: {problem}"));
    if !scene.is_held {
        sh("qemu-img compare -f qed -F raw converted expected");
    }
    // Taken back where there is something, then grown over where the tail was.
    match undo(&open("grown")) {
        Ok(()) | Err(InPlaceError::Refused(Refusal::NothingToUndo)) => {}
        Err(error) => panic!("{case}: {error}"),
    }
    sh("qemu-img compare -f qcow2 -F raw grown expected; qemu-img check -f qcow2 grown");
    if !scene.is_held {
        sh("qemu-img resize --preallocation=metadata -f qcow2 grown 8M
            qemu-img resize -f raw expected 8M; qemu-img compare -f qcow2 -F raw grown expected");
    }
}
