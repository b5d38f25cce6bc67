//! Images that claim to be conversions and were made up: undoing one is refused, at no cost, and
//! changes nothing.

use std::fs;
use std::sync::Arc;

use qed_convert::in_place::{InPlaceError, Refusal, ToQed, ToQedOptions, undo};
use qed_core::Identity;
use qed_io::{FileOptions, FileStorage, Storage};
use qed_spec::{Epoch, ImageUuid, UNDO_RECORD_LEN_BYTES, UndoRecord};

use crate::qcow2_lab::Lab;

const IDENTITY: Identity = Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(8) };

fn number(storage: &dyn Storage, at: u64) -> u64 {
    let mut bytes = [0; 8];
    storage.read_at(&mut bytes, at).expect("inside the file");
    u64::from_le_bytes(bytes)
}

/// Puts bytes in the first sector, and in what the record says that the conversion wrote there.
fn forge_header(storage: &dyn Storage, at: usize, bytes: &[u8]) {
    let place = UndoRecord::OFFSET.get();
    let mut record = [0; UNDO_RECORD_LEN_BYTES];
    storage.read_at(&mut record, place).expect("inside the file");
    let mut record = UndoRecord::parse(&record).expect("the conversion wrote it");
    record.new_sector[at..at + bytes.len()].copy_from_slice(bytes);
    storage.write_at(&record.encode(), place).expect("room in /tmp");
    storage.write_at(&record.new_sector, 0).expect("room in /tmp");
}

type Forge = fn(&dyn Storage);

const FORGED: [(&str, Forge); 6] = [
    ("another table", |storage| {
        let l1 = number(storage, 40);
        assert_eq!(number(storage, l1 + 64), 0, "the slot is not in use");
        let table = number(storage, l1).to_le_bytes();
        storage.write_at(&table, l1 + 64).expect("room in /tmp");
    }),
    ("no table", |storage| storage.write_at(&[0; 8], number(storage, 40)).expect("room in /tmp")),
    ("smaller clusters", |storage| forge_header(storage, 4, &(32_u32 << 10).to_le_bytes())),
    ("bytes behind the tables", |storage| {
        storage.write_at(b"x", storage.len().expect("a file")).expect("room in /tmp");
    }),
    ("a longer file", |storage| {
        storage.set_len(storage.len().expect("a file") + 512).expect("room in /tmp");
    }),
    ("another disk", |storage| forge_header(storage, 48, &(1_u64 << 20).to_le_bytes())),
];

#[test]
fn what_was_made_up_is_not_undone() {
    for (what, forge) in FORGED {
        let lab = Lab::new();
        lab.run(
            "create -q -f qcow2 x 64G
io x write -P 3 1M 300k",
        );
        let storage = FileStorage::open(lab.path("x"), FileOptions::READ_WRITE).expect("a file");
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let options = ToQedOptions { drop_snapshots: false, identity: IDENTITY };
        let conversion = ToQed::plan(Arc::clone(&storage), &options).expect("a sound image");
        conversion.convert(None).expect("room in /tmp");
        forge(&*storage);
        let before = fs::read(lab.path("x")).expect("the file");
        let error = undo(&storage).expect_err(what);
        assert!(matches!(error, InPlaceError::Refused(Refusal::Changed)), "{what}: {error:?}");
        assert!(fs::read(lab.path("x")).expect("the file") == before, "{what}: it was changed");
    }
}

#[test]
fn what_a_snapshot_may_own_behind_an_interrupted_conversion_is_not_cut() {
    let lab = Lab::new();
    lab.run(
        "create -q -f qcow2 x 4M
io x write -P 3 1M 300k
snapshot -q -c s x",
    );
    let storage = FileStorage::open(lab.path("x"), FileOptions::READ_WRITE).expect("a file");
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let options = ToQedOptions { drop_snapshots: true, identity: IDENTITY };
    let conversion = ToQed::plan(Arc::clone(&storage), &options).expect("a sound image");
    conversion.convert(None).expect("room in /tmp");
    // The first sector that it had, as a crash before the commit leaves it, and QEMU's dirty bit.
    let mut record = [0; UNDO_RECORD_LEN_BYTES];
    storage.read_at(&mut record, UndoRecord::OFFSET.get()).expect("inside the file");
    let mut sector = UndoRecord::parse(&record).expect("the conversion wrote it").old_sector;
    storage.write_at(&sector, 0).expect("room in /tmp");
    ToQed::plan(Arc::clone(&storage), &options).expect("it is QCOW2 again");
    sector[79] |= 1;
    storage.write_at(&sector, 0).expect("room in /tmp");
    let before = fs::read(lab.path("x")).expect("the file");
    for error in [ToQed::plan(Arc::clone(&storage), &options).err(), undo(&storage).err()] {
        let refused = matches!(error, Some(InPlaceError::Refused(Refusal::DirtySnapshots)));
        assert!(refused, "{error:?}");
    }
    assert!(fs::read(lab.path("x")).expect("the file") == before, "it was changed");
}
