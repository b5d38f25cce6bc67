//! Images in files, backing files of bytes, and requests to an engine.

use std::sync::Arc;

use qed_core::{
    BackingError, BackingFormat, CreateBacking, CreateOptions, GivenBacking, GuestExtent,
    GuestExtentKind, Identity, Image, Layout, LockPolicy, RawFile, RecoveryPolicy, VirtualDisk,
    WriteContext, create,
};
use qed_engine::{Direction, Engine, EngineRequest};
use qed_io::{Access, Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};
use qed_spec::{Epoch, Geometry, ImageUuid};
use tempfile::TempDir;

pub(crate) const CLUSTER: u64 = 16 << 10;
pub(crate) const DISK: u64 = 4 << 20;

/// Bytes that can be made to fail.
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl VirtualDisk for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let start = offset as usize;
        buf.copy_from_slice(&self.0[start..start + buf.len()]);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let kind = GuestExtentKind::Data { host_offset: offset };
        Ok(GuestExtent { len: max_len.min(self.len() - offset), depth: 0, kind })
    }
}

/// A raw image of the test's own, with these bytes.
pub(crate) fn raw_file(folder: &TempDir, direct: bool, bytes: &[u8]) -> RawFile {
    let path = folder.path().join("raw");
    std::fs::write(&path, bytes).unwrap();
    let options = FileOptions { access: Access::ReadOnly, direct };
    RawFile::open(Arc::new(FileStorage::open(path, options).unwrap())).unwrap()
}

/// An image in a file of its own.
pub(crate) struct Made {
    pub(crate) folder: TempDir,
    pub(crate) file: Arc<FileStorage>,
    pub(crate) image: Arc<Image>,
}

pub(crate) fn make(direct: bool, is_journal: bool, gate: &GivenBacking) -> Made {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let new = NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct };
    let file = Arc::new(FileStorage::create(folder.path().join("disk.qed"), new).unwrap());
    let mut options = CreateOptions::new(DISK);
    options.geometry = Geometry::new(CLUSTER as u32, 2).unwrap();
    let identity = Identity { uuid: ImageUuid::new([5; 16]), epoch: Epoch::new(6) };
    options.layout = if is_journal {
        Layout::Journal { identity, ring_len_bytes: 32 << 10 }
    } else {
        Layout::Compat(identity)
    };
    options.backing = gate
        .0
        .as_ref()
        .map(|_| CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw });
    // For programs that follow the name.
    std::fs::write(folder.path().join("base"), [0; 512]).unwrap();
    create(&*file, &options).unwrap();
    let context = WriteContext::new(gate, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Arc::new(Image::open(file.clone(), &context).unwrap());
    Made { folder, file, image }
}

pub(crate) fn write(engine: &mut Engine, tag: u64, at: u64, bytes: &[u8]) {
    let mut buffer = engine.buffer(bytes.len());
    buffer.copy_from_slice(bytes);
    engine.start(EngineRequest { tag, direction: Direction::Write, at, buffer });
}

pub(crate) fn read(engine: &mut Engine, tag: u64, at: u64, len: usize) {
    let buffer = engine.buffer(len);
    engine.start(EngineRequest { tag, direction: Direction::Read, at, buffer });
}

/// Waits for all requests; none may have failed.
pub(crate) fn finish(engine: &mut Engine) -> Vec<(u64, Vec<u8>)> {
    let mut served = Vec::new();
    while let Some(one) = engine.wait().unwrap() {
        one.result.unwrap();
        served.push((one.tag, one.buffer.to_vec()));
    }
    served
}
