//! The backing file entry of the header: names of any bytes, places that never overlap.

use std::sync::{Arc, Mutex};

use qed_core::{
    BackingFormat, BackingGate, BackingRequest, CreateBacking, CreateError, CreateOptions,
    GateError, GivenBacking, Image, Layout, LockPolicy, ReadContext, ReadOnlyImage,
    SetBackingError, VirtualDisk, create, replay_journal,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{Features, GuestOffset};

use crate::support::{Bytes, COMPAT, JOURNAL, new_storage, new_storage_of, open, small_geometry};

/// Opens no backing file, and keeps the format that it was asked with.
#[derive(Default)]
struct Asked(Mutex<Option<BackingFormat>>);

impl BackingGate for Asked {
    fn open_backing(
        &self,
        request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn VirtualDisk>>, GateError> {
        *self.0.lock().unwrap() = Some(request.format);
        Ok(None)
    }
}

/// The format that the image in `storage` states for its backing file.
fn stated(storage: &Arc<MemoryStorage>) -> Option<BackingFormat> {
    let asked = Asked::default();
    let image = ReadOnlyImage::open(storage.clone(), &ReadContext::new(&asked, LockPolicy::None));
    image.unwrap();
    asked.0.into_inner().unwrap()
}

fn backing(name: &[u8], format: BackingFormat) -> CreateBacking {
    CreateBacking { name: name.to_vec(), format }
}

fn qcow2() -> BackingFormat {
    BackingFormat::Named("qcow2".to_owned())
}

// spec-test: QED-BACK-06
#[test]
fn names_change_back_and_forth_until_there_is_no_room() {
    let storage = new_storage(small_geometry(), 1 << 20, true);
    let gate = GivenBacking(Some(Arc::new(Bytes(vec![7; 4096]))));
    let read = ReadContext::new(&gate, LockPolicy::None);
    let image = open(storage.clone(), &gate);
    for (len, format) in
        [(2000, BackingFormat::Raw), (50, BackingFormat::Unstated), (1, BackingFormat::Raw)]
    {
        let name: Vec<u8> = (0..len).map(|i| (i % 255 + 1) as u8).collect();
        let is_raw = format == BackingFormat::Raw;
        image.set_backing(Some(&CreateBacking { name: name.clone(), format })).unwrap();
        let again = ReadOnlyImage::open(storage.clone(), &read).unwrap();
        assert_eq!(again.backing_name().as_ref(), Some(&name));
        assert_eq!(image.backing_name(), Some(name));
        let no_probe = again.header().features().contains(Features::BACKING_FORMAT_NO_PROBE);
        assert_eq!(no_probe, is_raw);
    }
    let too_long = CreateBacking { name: vec![b'x'; 4095], format: BackingFormat::Raw };
    let error = image.set_backing(Some(&too_long)).unwrap_err();
    assert!(matches!(error, SetBackingError::NoRoom { area: 4096, len: 4095 }), "{error}");
    image.set_backing(None).unwrap();
    let again = ReadOnlyImage::open(storage, &read).unwrap();
    assert_eq!(again.backing_name(), None);
    assert!(again.header().features().is_empty());
}

// spec-test: QED-BACK-05, QED-SB-15
#[test]
fn a_new_image_with_a_superblock_states_any_format() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let raw = BackingFormat::Raw;
        for format in [raw, qcow2(), BackingFormat::Unstated] {
            let storage = Arc::new(MemoryStorage::default());
            let options = CreateOptions {
                backing: Some(backing(b"base", format.clone())),
                layout,
                ..CreateOptions::new(1 << 20)
            };
            create(&*storage, &options).unwrap();
            let is_lost = layout == Layout::Classic && format == qcow2();
            let expected = if is_lost { BackingFormat::Unstated } else { format };
            assert_eq!(stated(&storage), Some(expected), "{layout:?}");
        }
        let format = BackingFormat::Named("QCOW2".to_owned());
        let options = CreateOptions {
            backing: Some(backing(b"base", format.clone())),
            layout: COMPAT,
            ..CreateOptions::new(1 << 20)
        };
        let error = create(&MemoryStorage::default(), &options).unwrap_err();
        assert!(matches!(error, CreateError::BackingFormat(_)), "{error}");
    }
}

// spec-test: QED-BACK-05, QED-BACK-06, QED-SB-15
#[test]
fn the_format_changes_with_the_name_and_without_it() {
    for layout in [COMPAT, JOURNAL] {
        let storage = new_storage_of(layout, small_geometry(), 1 << 20, false);
        let image = open(storage.clone(), &GivenBacking(None));
        let steps: &[(&[u8], BackingFormat)] = &[
            (b"a", qcow2()),
            (b"a", BackingFormat::Raw),
            (b"a", qcow2()),
            (b"a", BackingFormat::Unstated),
            (b"b", BackingFormat::Named("qed".to_owned())),
            (b"a", BackingFormat::Unstated),
            (b"a", qcow2()),
        ];
        for (name, format) in steps {
            image.write_at(&[5; 512], GuestOffset::new(8192)).unwrap();
            image.set_backing(Some(&backing(name, format.clone()))).unwrap();
            assert_eq!(stated(&storage), Some(format.clone()), "{layout:?}");
        }
        let bad = BackingFormat::Named(String::new());
        let error = image.set_backing(Some(&backing(b"a", bad))).unwrap_err();
        assert!(matches!(error, SetBackingError::BackingFormat(_)), "{error}");
        goes_on(&image, &storage);
        drop(image);
        assert_eq!(stated(&storage), Some(qcow2()), "{layout:?}");
    }
}

/// What is written after the superblock changed survives as before.
fn goes_on(image: &Image, storage: &Arc<MemoryStorage>) {
    image.write_at(&[9; 4096], GuestOffset::new(64 << 10)).unwrap();
    image.flush().unwrap();
    let crashed = Arc::new(MemoryStorage::new(storage.to_vec()));
    replay_journal(&(crashed.clone() as Arc<dyn Storage>)).unwrap();
    let context = ReadContext::new(&GivenBacking(None), LockPolicy::None);
    let again = ReadOnlyImage::open(crashed, &context).unwrap();
    let mut bytes = [0; 4096];
    again.read_at(&mut bytes, GuestOffset::new(64 << 10)).unwrap();
    assert_eq!(bytes, [9; 4096]);
}
