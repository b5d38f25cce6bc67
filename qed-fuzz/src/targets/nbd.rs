//! Dialogues with the NBD server: whatever a client says, each word has its one answer, and the disk
//! is what was written.

use std::io::Cursor;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_core::{
    CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_export::nbd::{Export, Exports, converse};
use qed_export::{BlockDevice, QedDisk, RawDisk};
use qed_io::{MemoryStorage, Storage};

use crate::branches::Branches;
use crate::generators::dialogue::{DISK_SIZE, Dialogue, NAMES};
use crate::oracles::dialogue::{assert_answers, bytes_of};
use crate::size::usize_of;

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let dialogue = Dialogue::any(from)?;
    let mut said = Vec::new();
    let ended = converse(&exports(), &mut Cursor::new(bytes_of(&dialogue)), &mut said);
    branches.note("end", ended.map_err(|error| error.kind()));
    assert_answers(&dialogue, &said, branches);
    Ok(())
}

/// A QED image and a raw disk.
fn exports() -> Exports {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    create(&*storage, &CreateOptions::new(DISK_SIZE)).expect("memory takes every image");
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Image::open(storage, &context).expect("a new image opens");
    let raw = Arc::new(MemoryStorage::new(vec![0; usize_of(DISK_SIZE)]));
    let disks: [Box<dyn BlockDevice>; 2] =
        [Box::new(QedDisk::new(image)), Box::new(RawDisk::open(raw).expect("memory has a length"))];
    let exports = disks.into_iter().zip(NAMES).map(|(disk, name)| Export::new(name, disk));
    Exports::new(exports.collect()).expect("two names")
}
