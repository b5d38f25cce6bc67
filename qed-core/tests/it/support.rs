//! Images in memory and a small deterministic random number generator.

use std::sync::Arc;

use qed_core::{
    BackingError, BackingGate, CreateBacking, CreateOptions, GuestExtent, GuestExtentKind,
    Identity, Image, Layout, LockPolicy, RecoveryPolicy, VirtualDisk, WriteContext, create,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{Epoch, Geometry, ImageUuid};

/// xorshift64*: the same numbers for the same seed, everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A backing file made of bytes.
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl VirtualDisk for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let start = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.0[start..start + buf.len()]);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let kind = GuestExtentKind::Data { host_offset: offset };
        Ok(GuestExtent { len: max_len.min(self.len() - offset), depth: 0, kind })
    }
}

pub(crate) fn small_geometry() -> Geometry {
    Geometry::new(4096, 2).unwrap()
}

/// Compat mode.
pub(crate) const COMPAT: Layout =
    Layout::Compat(Identity { uuid: ImageUuid::new([5; 16]), epoch: Epoch::new(6) });

/// Journal mode with the smallest ring.
pub(crate) const JOURNAL: Layout = Layout::Journal {
    identity: Identity { uuid: ImageUuid::new([5; 16]), epoch: Epoch::new(6) },
    ring_len_bytes: 32 << 10,
};

/// A new classic image in memory, over `backing` if there is one.
pub(crate) fn new_storage(geometry: Geometry, size: u64, backing: bool) -> Arc<MemoryStorage> {
    new_storage_of(Layout::Classic, geometry, size, backing)
}

/// A new image in memory, over `backing` if there is one.
pub(crate) fn new_storage_of(
    layout: Layout,
    geometry: Geometry,
    size: u64,
    backing: bool,
) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::default());
    let backing = backing
        .then(|| CreateBacking { name: b"base".to_vec(), format: qed_core::BackingFormat::Raw });
    create(&*storage, &CreateOptions { geometry, image_size: size, backing, layout }).unwrap();
    storage
}

/// Makes entry 700 of the first table of a classic image of [`small_geometry`] name what entry 0 names, in
/// two slices of which no request reads both; the byte of the file where that cluster begins.
pub(crate) fn name_twice(storage: &MemoryStorage) -> u64 {
    const TABLE: u64 = 3 * 4096;
    let mut value = [0; 8];
    storage.read_at(&mut value, TABLE).unwrap();
    storage.write_at(&value, TABLE + 700 * 8).unwrap();
    u64::from_le_bytes(value)
}

/// The cluster at a byte of the file is full of this.
pub(crate) fn assert_holds(storage: &MemoryStorage, host: u64, byte: u8) {
    let mut bytes = [0; 4096];
    storage.read_at(&mut bytes, host).unwrap();
    assert_eq!(bytes, [byte; 4096], "the data of the other name");
}

pub(crate) fn open(storage: Arc<dyn Storage>, gate: &dyn BackingGate) -> Image {
    Image::open(storage, &context(gate)).unwrap()
}

pub(crate) fn context(gate: &dyn BackingGate) -> WriteContext<'_> {
    WriteContext {
        cache_limit_bytes: 0,
        ..WriteContext::new(gate, LockPolicy::Take, RecoveryPolicy::Refuse)
    }
}
