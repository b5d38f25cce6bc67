//! Preallocated images: what the file does not store is neither read nor counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qed_convert::compare::{CompareOptions, Comparison, compare};
use qed_convert::measure::{MeasureTarget, measure};
use qed_convert::{ConvertOptions, NoProgress, Target, convert};
use qed_core::{
    BackingError, GuestExtent, Layout, LockPolicy, ReadContext, ReadOnlyImage, RefuseBacking,
    VirtualDisk,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::Geometry;

use crate::qcow2_lab::{Lab, file};

/// A disk that counts the bytes that are read from it.
#[derive(Debug)]
struct Counted(Arc<dyn VirtualDisk>, AtomicU64);

impl Counted {
    fn new(disk: impl VirtualDisk + 'static) -> Self {
        Self(Arc::new(disk), AtomicU64::new(0))
    }

    fn taken(&self) -> u64 {
        self.1.swap(0, Ordering::Relaxed)
    }
}

impl VirtualDisk for Counted {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        self.0.extent_at(offset, max_len)
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        self.0.data_storage(offset, depth)
    }
}

const SIZE: u64 = 1 << 30;
const GEOMETRY: (u32, u32) = (65536, 4);

/// Copies, compares and measures `disk`, of which one mebibyte at 300 MiB is data.
#[track_caller]
fn check(disk: &Counted) {
    let geometry = Geometry::new(GEOMETRY.0, GEOMETRY.1).expect("a good image");
    let target = Arc::new(MemoryStorage::default());
    let storage: Arc<dyn Storage> = target.clone();
    let qed = Target::Qed { storage, geometry, layout: Layout::Classic, backing: None };
    let options = ConvertOptions::default();
    convert(disk, qed, &options, &NoProgress).expect("a good image");
    assert!(disk.taken() < 4 << 20, "convert");

    let context = ReadContext::new(&RefuseBacking, LockPolicy::Take);
    let copy = ReadOnlyImage::open(target.clone(), &context).expect("a good image");
    let found =
        compare(disk, &copy, &CompareOptions::default(), &NoProgress).expect("a good image");
    assert_eq!(found, Comparison::Identical);
    assert!(disk.taken() < 4 << 20, "compare");
    let mut bytes = vec![0; 3 << 20];
    copy.read_at(&mut bytes, qed_spec::GuestOffset::new(299 << 20)).expect("a good image");
    assert!(bytes[..1 << 20].iter().all(|byte| *byte == 0));
    assert!(bytes[1 << 20..2 << 20].iter().all(|byte| *byte == 7));

    let measured = measure(disk, &MeasureTarget::Qed { geometry, layout: Layout::Classic });
    assert_eq!(measured.expect("a good image").required, target.len().expect("a good image"));
}

#[test]
fn a_preallocated_qcow2_is_what_its_file_stores() {
    let lab = Lab::new();
    lab.run(&format!("create -q -f qcow2 -o preallocation=metadata p.qcow2 {SIZE}\nio p.qcow2 write -q -P 7 300M 1M"));
    check(&Counted::new(lab.open("p.qcow2")));
    // Through an overlay, and a raw file, which was never different.
    lab.run("create -q -f qcow2 -b p.qcow2 -F qcow2 o.qcow2");
    check(&Counted::new(lab.open("o.qcow2")));
}

#[test]
fn a_qed_image_of_which_zeros_were_cut_out_is_what_its_file_stores() {
    let lab = Lab::new();
    lab.run(&format!(
        "create -q -f qed z.qed {SIZE}\nio z.qed write -q -P 0 200M 200M; write -q -P 7 300M 1M"
    ));
    let storage = file(&lab.path("z.qed"));
    let cut = std::process::Command::new("fallocate").arg("-d").arg(lab.path("z.qed")).status();
    assert!(cut.expect("fallocate of util-linux").success());
    let context = ReadContext::new(&RefuseBacking, LockPolicy::Take);
    check(&Counted::new(ReadOnlyImage::open(storage, &context).unwrap()));
}
