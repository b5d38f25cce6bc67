//! The backing file entry of the header: names of any bytes, places that never overlap.

use qed_core::{
    BackingFormat, CreateBacking, LockPolicy, ReadContext, ReadOnlyImage, SetBackingError,
};
use qed_spec::Features;

use crate::support::{Bytes, Holds, new_storage, open, small_geometry};

// spec-test: QED-BACK-06
#[test]
fn names_change_back_and_forth_until_there_is_no_room() {
    let storage = new_storage(small_geometry(), 1 << 20, true);
    let gate = Holds(Some(std::sync::Arc::new(Bytes(vec![7; 4096]))));
    let read = ReadContext::new(&gate, LockPolicy::None);
    let image = open(storage.clone(), &gate);
    for (len, format) in
        [(2000, BackingFormat::Raw), (50, BackingFormat::Unstated), (1, BackingFormat::Raw)]
    {
        let name: Vec<u8> = (0..len).map(|i| (i % 255 + 1) as u8).collect();
        image.set_backing(Some(&CreateBacking { name: name.clone(), format })).unwrap();
        let again = ReadOnlyImage::open(storage.clone(), &read).unwrap();
        assert_eq!(again.backing_name().as_ref(), Some(&name));
        assert_eq!(image.backing_name(), Some(name));
        let no_probe = again.header().features().contains(Features::BACKING_FORMAT_NO_PROBE);
        assert_eq!(no_probe, format == BackingFormat::Raw);
    }
    let too_long = CreateBacking { name: vec![b'x'; 4095], format: BackingFormat::Raw };
    let error = image.set_backing(Some(&too_long)).unwrap_err();
    assert!(matches!(error, SetBackingError::NoRoom { area: 4096, len: 4095 }), "{error}");
    image.set_backing(None).unwrap();
    let again = ReadOnlyImage::open(storage, &read).unwrap();
    assert_eq!(again.backing_name(), None);
    assert!(again.header().features().is_empty());
}
