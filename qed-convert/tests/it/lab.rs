//! What the tests of the engine share: a disk made of known runs, a random source, a gate, and
//! readers for what was written.

use std::num::NonZeroUsize;
use std::sync::Arc;

use qed_convert::ConvertOptions;
use qed_convert::qcow2::{Qcow2Image, Qcow2Options};
use qed_core::{
    BackingError, GivenBacking, GuestExtent, GuestExtentKind, LockPolicy, RawFile, ReadContext,
    ReadOnlyImage, RefuseBacking, VirtualDisk,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::ErrorKind;

use crate::qcow2_lab::{Lab, file};

/// A small random number generator; the same seed gives the same tests everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_right(16)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).expect("fits in memory")]
    }
}

/// A disk in memory with a mapping; its bytes are what the whole chain shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelDisk {
    pub(crate) bytes: Vec<u8>,
    /// End, kind and depth of each run.
    runs: Vec<(u64, GuestExtentKind, u32)>,
    /// Sectors that fail to be read.
    pub(crate) unreadable: Vec<u64>,
    /// The mapping fails to be read, too.
    pub(crate) unmapped: bool,
}

impl ModelDisk {
    /// Random runs over `backing`, if there is one; `size` is a multiple of 512.
    pub(crate) fn random(random: &mut Random, size: u64, backing: Option<&ModelDisk>) -> Self {
        let mut disk = Self::default();
        while disk.len() < size {
            let unit = random.pick(&[512, 512, 4096, 65536]);
            let len = ((1 + random.below(12)) * unit).min(size - disk.len());
            let data = GuestExtentKind::Data { host_offset: disk.len() };
            match random.below(6) {
                0 => disk.push(
                    vec![0; usize::try_from(len).expect("fits in memory")],
                    GuestExtentKind::Zero,
                    0,
                ),
                1 if backing.is_none() => {
                    let zeros = vec![0; usize::try_from(len).expect("fits in memory")];
                    disk.push(zeros, GuestExtentKind::Unallocated, 0);
                }
                1 | 2 if backing.is_some() => {
                    let bytes = slice(backing.expect("asked for above"), disk.len(), len);
                    disk.push(bytes, data, 1);
                }
                3 => disk.push(vec![0; usize::try_from(len).expect("fits in memory")], data, 0),
                4 => disk.push(islands(random, len), GuestExtentKind::Compressed, 0),
                _ => disk.push(noise(random, len), data, 0),
            }
        }
        disk
    }

    /// One run of data.
    pub(crate) fn of_data(bytes: Vec<u8>) -> Self {
        let mut disk = Self::default();
        disk.push(bytes, GuestExtentKind::Data { host_offset: 0 }, 0);
        disk
    }

    pub(crate) fn push(&mut self, bytes: Vec<u8>, kind: GuestExtentKind, depth: u32) {
        self.bytes.extend(bytes);
        self.runs.push((self.bytes.len() as u64, kind, depth));
    }
}

fn slice(disk: &ModelDisk, at: u64, len: u64) -> Vec<u8> {
    let byte = |at: u64| {
        disk.bytes.get(usize::try_from(at).expect("fits in memory")).copied().unwrap_or(0)
    };
    (at..at + len).map(byte).collect()
}

pub(crate) fn noise(random: &mut Random, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("fits in memory")];
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&random.next().to_le_bytes()[..part.len()]);
    }
    bytes
}

/// Zeros with a few bytes in them.
fn islands(random: &mut Random, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("fits in memory")];
    for _ in 0..1 + len / 20_000 {
        bytes[usize::try_from(random.below(len)).expect("fits in memory")] = 0xa5;
    }
    bytes
}

impl VirtualDisk for ModelDisk {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let end = offset + buf.len() as u64;
        if let Some(bad) = self.unreadable.iter().find(|at| **at < end && offset < **at + 512) {
            return Err(BackingError::new(*bad, ErrorKind::Io, "bad sector"));
        }
        let from = usize::try_from(offset).expect("fits in memory");
        buf.copy_from_slice(&self.bytes[from..from + buf.len()]);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        if self.unmapped {
            return Err(BackingError::new(offset, ErrorKind::Corrupt, "bad table"));
        }
        let (end, kind, depth) =
            self.runs.iter().find(|(end, ..)| offset < *end).copied().expect("inside the disk");
        Ok(GuestExtent { len: (end - offset).min(max_len), depth, kind })
    }
}

pub(crate) fn memory() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::default())
}

pub(crate) fn options(threads: usize) -> ConvertOptions {
    ConvertOptions {
        threads: NonZeroUsize::new(threads).expect("not zero"),
        ..ConvertOptions::default()
    }
}

pub(crate) fn open_qed(
    storage: Arc<dyn Storage>,
    backing: Option<Arc<dyn VirtualDisk>>,
) -> ReadOnlyImage {
    let gate = GivenBacking(backing);
    ReadOnlyImage::open(storage, &ReadContext::new(&gate, LockPolicy::Take))
        .expect("a working storage")
}

pub(crate) fn open_qcow2(
    storage: Arc<dyn Storage>,
    backing: Option<Arc<dyn VirtualDisk>>,
) -> Qcow2Image {
    let gate = GivenBacking(backing);
    Qcow2Image::open(storage, &Qcow2Options::new(&gate, LockPolicy::Take))
        .expect("a working storage")
}

/// All bytes of a disk.
pub(crate) fn read_all(disk: &dyn VirtualDisk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.len()).expect("fits in memory")];
    disk.read_at(&mut bytes, 0).expect("a working storage");
    bytes
}

#[track_caller]
pub(crate) fn assert_same(got: &[u8], want: &[u8], what: &str) {
    assert_eq!(got.len(), want.len(), "length: {what}");
    if let Some(at) = got.iter().zip(want).position(|(got, want)| got != want) {
        panic!("byte {at:#x} is {:#x}, not {:#x}: {what}", got[at], want[at]);
    }
}

/// Opens an image, without a backing file unless it is QCOW2, by the end of its name.
pub(crate) fn open_by_name(lab: &Lab, name: &str) -> Arc<dyn VirtualDisk> {
    let context = ReadContext::new(&RefuseBacking, LockPolicy::Take);
    match name.rsplit('.').next() {
        Some("qcow2") => Arc::new(lab.open(name)),
        Some("qed") => {
            let image = ReadOnlyImage::open(file(&lab.path(name)), &context);
            Arc::new(image.expect("a good image"))
        }
        _ => Arc::new(RawFile::open(file(&lab.path(name))).expect("a file")),
    }
}
