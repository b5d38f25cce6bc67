//! Damaged QCOW2 images: whatever bytes are wrong, reading ends in bytes or in an error.

use std::fs;
use std::sync::Arc;

use qed_convert::in_place::{ToQed, ToQedOptions, undo};
use qed_convert::qcow2::{Qcow2Image, Qcow2Options, Qcow2SnapshotSelector};
use qed_core::{Identity, LockPolicy, ReadContext, ReadOnlyImage, RefuseBacking, VirtualDisk};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{Epoch, GuestOffset, ImageUuid};

use crate::lab::Random;
use crate::qcow2_lab::{Lab, index};

/// Damaged copies of each image.
const ROUNDS: usize = 20_000;
/// Bytes that are likely to hurt: small numbers, bounds, single bits.
const VALUES: [u8; 12] = [0, 1, 2, 4, 7, 8, 0x10, 0x40, 0x7f, 0x80, 0xf0, 0xff];

const IMAGES: &[(&str, &str)] = &[
    (
        "deflate, snapshot and bitmap",
        "create -q -f qcow2 -o cluster_size=4k top.qcow2 32k
         io top.qcow2 write -c -P 1 0 4k; write -P 2 4k 4k; write -z 8k 4k; write -c -P 3 12k 4k
         snapshot -c one top.qcow2
         bitmap --add top.qcow2 two
         io top.qcow2 write -c -P 4 16k 4k",
    ),
    (
        "zstd with clusters of 512",
        "create -q -f qcow2 -o cluster_size=512,compression_type=zstd top.qcow2 64k
         io top.qcow2 write -P 1 100 5000; write -z 8k 4k; write -c -P 3 12k 512",
    ),
    (
        "subclusters",
        "create -q -f qcow2 -o cluster_size=16k,extended_l2=on top.qcow2 64k
         io top.qcow2 write -P 1 512 1k; write -c -P 2 16k 16k; write -z 32k 1k; write -P 3 34k 512",
    ),
    (
        "version 2",
        "create -q -f qcow2 -o cluster_size=512,compat=0.10 top.qcow2 32k
         io top.qcow2 write -P 1 100 5000; write -c -P 3 12k 512",
    ),
];

#[test]
fn damaged_images_never_panic() {
    for (name, script) in IMAGES {
        let lab = Lab::new();
        lab.run(script);
        let good = fs::read(lab.path("top.qcow2")).expect("just made");
        assert!(reads(good.clone()), "{name}");
        let mut random = Random::new(11);
        let (mut failures, mut converted) = (0, 0);
        for _ in 0..ROUNDS {
            let mut bytes = good.clone();
            for _ in 0..1 + index(&mut random, 3) {
                let at = place(&mut random, &good);
                bytes[at] = match random.below(2) {
                    0 => random.pick(&VALUES),
                    _ => bytes[at] ^ (1 << random.below(8)),
                };
            }
            if random.below(50) == 0 {
                bytes.truncate(index(&mut random, good.len()));
            }
            if random.below(4) == 0 {
                converted += usize::from(converts_in_place(&bytes));
            }
            failures += usize::from(!reads(bytes));
        }
        assert!(failures > ROUNDS / 20, "{name}: only {failures} of {ROUNDS} were noticed");
        let is_convertible = !script.contains("cluster_size=512");
        assert!(!is_convertible || converted > ROUNDS / 40, "{name}: {converted} were converted");
        assert!(failures < ROUNDS, "{name}: all were refused, so little was tested");
    }
}

/// A byte to damage: one of the header, one that is not zero, or any.
fn place(random: &mut Random, bytes: &[u8]) -> usize {
    match random.below(4) {
        0 => index(random, 112),
        1 => index(random, bytes.len()),
        _ => {
            let start = index(random, bytes.len());
            let found = bytes[start..].iter().position(|byte| *byte != 0);
            found.map_or(start, |distance| start + distance)
        }
    }
}

/// Whether the image is converted in place; then both formats show the same disk, as far as the first
/// can be read, and it comes back to the byte. An image that is not converted is not changed.
fn converts_in_place(bytes: &[u8]) -> bool {
    let storage = Arc::new(MemoryStorage::new(bytes.to_vec()));
    let identity = Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) };
    let options = ToQedOptions { drop_snapshots: true, identity };
    let Ok(conversion) = ToQed::plan(storage.clone(), &options) else { return false };
    let before = disk_of(bytes.to_vec());
    let done = conversion.convert(None);
    if done.is_ok() {
        let context = ReadContext::new(&RefuseBacking, LockPolicy::None);
        if let Some(before) = before {
            let image = ReadOnlyImage::open(storage.clone(), &context).expect("just converted");
            let mut after = vec![0; before.len()];
            image.read_at(&mut after, GuestOffset::new(0)).expect("just converted");
            assert!(after == before, "another disk");
        }
        undo(&(storage.clone() as Arc<dyn Storage>)).expect("nobody wrote");
    }
    assert!(storage.to_vec() == bytes, "not what it was");
    done.is_ok()
}

/// The front of the disk, if it can be read.
fn disk_of(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let options = Qcow2Options::new(&RefuseBacking, LockPolicy::None);
    let image = Qcow2Image::open(Arc::new(MemoryStorage::new(bytes)), &options).ok()?;
    let len = usize::try_from(image.image_size().min(256 << 10)).expect("small");
    let mut disk = vec![0; len];
    VirtualDisk::read_at(&image, &mut disk, 0).ok().map(|()| disk)
}

/// Whether the image opens and all of it can be mapped, read and listed.
fn reads(bytes: Vec<u8>) -> bool {
    let storage = Arc::new(MemoryStorage::new(bytes));
    let open = |snapshot| {
        let options =
            Qcow2Options { snapshot, ..Qcow2Options::new(&RefuseBacking, LockPolicy::Take) };
        Qcow2Image::open(Arc::<MemoryStorage>::clone(&storage), &options)
    };
    let Ok(image) = open(None) else {
        return false;
    };
    let mut good = image.read_bitmaps().is_ok() & all_of(&image);
    if !image.snapshots().is_empty() {
        let one = Qcow2SnapshotSelector::Id(image.snapshots()[0].id.clone());
        good &= open(Some(one)).is_ok_and(|snapshot| all_of(&snapshot));
    }
    good
}

fn all_of(image: &Qcow2Image) -> bool {
    // A damaged size may be huge; what lies there is unallocated or an error.
    let len = image.image_size().min(256 << 10);
    let mut good = true;
    let mut at = 0;
    while at < len {
        match image.extent_at(at, len - at) {
            Ok(extent) => {
                assert!(extent.len > 0 && extent.len <= len - at);
                at += extent.len;
            }
            Err(_) => {
                good = false;
                at += 512;
            }
        }
    }
    let mut bytes = vec![0; 4096];
    for at in (0..len).step_by(4096) {
        let part = usize::try_from((len - at).min(4096)).expect("small");
        good &= VirtualDisk::read_at(image, &mut bytes[..part], at).is_ok();
    }
    good
}
