//! Whether a state is what it may be, and whether every way goes on from it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use qed_check::{CheckOptions, check};
use qed_convert::{InPlaceError, Refusal, ToQed, undo};
use qed_core::{LockPolicy, ReadContext, ReadOnlyImage};
use qed_fuzz::DiskContent;
use qed_io::{FileOptions, FileStorage, MemoryStorage, Storage};
use qed_spec::{AutoclearFeatures, GuestOffset};

use crate::scene::{OPTIONS, Scene, WRITTEN};
use crate::storage_of;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Qcow2,
    Qed,
}

pub(crate) fn judge(scene: &Scene, state: &DiskContent) -> Result<Format, String> {
    let mut magic = [0; 4];
    state.read(&mut magic, 0);
    match &magic {
        b"QFI\xfb" => judge_qcow2(scene, state).map(|()| Format::Qcow2),
        b"QED\0" => judge_qed(scene, state).map(|()| Format::Qed),
        _ => Err(format!("the file begins with {magic:02x?}")),
    }
}

fn judge_qcow2(scene: &Scene, state: &DiskContent) -> Result<(), String> {
    if scene.read_qcow2(state)? != scene.disk {
        return Err("the QCOW2 image shows another disk".to_owned());
    }
    // Taken back, it is what it was; nothing to take back is in what it is already.
    let storage: Arc<dyn Storage> = storage_of(state);
    match undo(&storage) {
        Ok(()) | Err(InPlaceError::Refused(Refusal::NothingToUndo)) => {}
        Err(error) => return Err(format!("undo: {error}")),
    }
    if all_of(&*storage) != scene.start.bytes() {
        return Err("taken back, the QCOW2 image is not what it was".to_owned());
    }
    // Converted again, it shows the same disk.
    let storage: Arc<MemoryStorage> = storage_of(state);
    let conversion = ToQed::plan(storage.clone(), &OPTIONS).map_err(|error| error.to_string())?;
    conversion.convert(scene.gate().0.as_ref()).map_err(|error| error.to_string())?;
    judge_disk(scene, &storage, false)
}

fn judge_qed(scene: &Scene, state: &DiskContent) -> Result<(), String> {
    let storage = storage_of(state);
    let may_undo = judge_bits(&storage);
    judge_disk(scene, &storage, !may_undo)?;
    if !may_undo {
        return Ok(());
    }
    let undone: Arc<dyn Storage> = storage;
    undo(&undone).map_err(|error| format!("undo: {error}"))?;
    if all_of(&*undone) != scene.start.bytes() {
        return Err("undone, the image is not what it was".to_owned());
    }
    Ok(())
}

/// Whether the conversion can still be undone.
fn judge_bits(storage: &MemoryStorage) -> bool {
    let mut autoclear = [0; 8];
    storage.read_at(&mut autoclear, 32).unwrap();
    u64::from_le_bytes(autoclear) & AutoclearFeatures::CONVERSION_UNDO.bits() != 0
}

/// The disk of the QED image, in which the first write may have been done.
fn judge_disk(scene: &Scene, storage: &Arc<MemoryStorage>, written: bool) -> Result<(), String> {
    let report = check(&**storage, &CheckOptions::default()).map_err(|error| error.to_string())?;
    if report.corruptions() > 0 || (report.leaks() > 0 && !written) {
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
    if disk == scene.disk { Ok(()) } else { Err("the QED image shows another disk".to_owned()) }
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
    let conversion = ToQed::plan(open("converted"), &OPTIONS).unwrap();
    conversion.convert(scene.gate().0.as_ref()).unwrap_or_else(|error| panic!("{case}: {error}"));
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

fn all_of(storage: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(storage.len().unwrap()).unwrap()];
    storage.read_at(&mut bytes, 0).unwrap();
    bytes
}
