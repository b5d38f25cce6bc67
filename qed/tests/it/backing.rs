//! Which backing files are opened, and by whom.

use std::sync::{Arc, Mutex};

use qed::{Backing, BackingFormat, BackingGate, ErrorKind, Image};
use qed_core::{BackingRequest, GateError, RawFile, VirtualDisk};
use qed_io::{MemoryStorage, Storage};

const DISK: u64 = 1 << 20;
/// Two clusters.
const BASE: usize = 128 << 10;

/// Opens fives for any name, and tells which it was asked for.
#[derive(Default)]
struct Fives(Mutex<Vec<String>>);

impl BackingGate for Fives {
    fn open_backing(
        &self,
        request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn VirtualDisk>>, GateError> {
        self.0.lock().unwrap().push(request.name.to_string());
        let storage = Arc::new(MemoryStorage::default());
        storage.write_at(&[5; BASE], 0).map_err(|error| GateError::Other(error.into()))?;
        let raw = RawFile::open(storage).map_err(|error| GateError::Other(error.into()))?;
        Ok(Some(Arc::new(raw)))
    }
}

#[test]
fn a_backing_file_is_opened_where_the_caller_allows_it() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("base.raw"), [3; BASE]).unwrap();
    std::fs::write(folder.path().join("far.raw"), [4; 4096]).unwrap();
    std::os::unix::fs::symlink("../far.raw", inner.join("link.raw")).unwrap();

    let same = || Image::options().backing(Backing::SameFolder);
    let made = |name: &str| {
        let path = inner.join(format!("over-{}.qed", name.replace('/', "-")));
        (path.clone(), same().overlay_of(name, BackingFormat::Raw).create(&path, DISK))
    };
    let (near, disk) = made("base.raw");
    let disk = disk.unwrap();
    disk.write_at(&[1; 512], 512).unwrap();
    let mut bytes = [0; 1025];
    disk.read_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[511], bytes[512], bytes[1024]), (3, 1, 3));
    disk.close().unwrap();
    drop(disk);

    // Two images high, and the upper one says no format.
    let top = inner.join("top.qed");
    let format = BackingFormat::Unstated;
    let name = near.file_name().unwrap().as_encoded_bytes();
    same().overlay_of(name, format).create(&top, DISK).unwrap().close().unwrap();
    same().read_only().open(&top).unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[511], bytes[512]), (3, 1));

    for far in ["../far.raw", "link.raw"] {
        let (path, disk) = made(far);
        assert_eq!(disk.err().map(|error| error.kind()), Some(ErrorKind::Refused), "{far}");
        assert!(!path.exists(), "{far}: an image that does not open is not left");
    }
    let (_, gone) = made("gone.raw");
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);

    for options in [Image::options(), Image::options().read_only()] {
        assert_eq!(options.open(&near).unwrap_err().kind(), ErrorKind::Refused);
    }
    let fives = Fives::default();
    let disk = Image::options().backing(Backing::Gate(&fives)).open(&near).unwrap();
    disk.read_at(&mut bytes, BASE as u64 - 1025).unwrap();
    assert_eq!(bytes, [5; 1025]);
    assert_eq!(*fives.0.lock().unwrap(), ["base.raw"]);
}
