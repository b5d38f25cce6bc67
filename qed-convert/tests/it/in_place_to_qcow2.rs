//! QED to QCOW2 in place, beside QEMU: it reads the same, and its check finds nothing.

use std::fs;
use std::sync::Arc;

use qed_convert::in_place::{
    InPlaceError, Refusal, ToQcow2Options, plan_qed_to_qcow2, qed_to_qcow2,
};
use qed_convert::qcow2::Qcow2OptionError;
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, GivenBacking, Identity, Image, Layout, LockPolicy,
    RawFile, RecoveryPolicy, WriteContext, ZeroMode, create,
};
use qed_io::{FileOptions, FileStorage, MemoryStorage, Storage};
use qed_spec::{Epoch, Geometry, GuestOffset, ImageUuid};

use crate::lab::{Random, noise};
use crate::qcow2_lab::Lab;

const IDENTITY: Identity = Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(8) };
const LAYOUTS: [Layout; 3] = [
    Layout::Classic,
    Layout::Compat(IDENTITY),
    Layout::Journal { identity: IDENTITY, ring_len_bytes: 64 << 10 },
];

/// Bytes per cluster, clusters per table, bytes of the disk.
const SHAPES: [(u32, u32, u64); 10] = [
    (4 << 10, 1, 1 << 20),
    (4 << 10, 4, (9 << 20) + 512),
    (8 << 10, 2, 3 << 20),
    (16 << 10, 1, (64 << 20) - 1024),
    (64 << 10, 4, (20 << 20) + 3 * 512),
    (256 << 10, 2, 40 << 20),
    (1 << 20, 2, 70 << 20),
    (2 << 20, 2, (90 << 20) + 512),
    (8 << 20, 1, (100 << 20) + 4096),
    (64 << 20, 1, (200 << 20) + 512),
];

fn options(recovery: RecoveryPolicy<'_>) -> ToQcow2Options<'_> {
    ToQcow2Options { lock: LockPolicy::Take, recovery, backing_format: None }
}

fn writable(lab: &Lab, name: &str) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(lab.path(name), FileOptions::READ_WRITE).expect("a file"))
}

/// Makes `x.qed` with data and zeros all over the disk, and `x.raw` that reads the same.
fn make(lab: &Lab, layout: Layout, shape: (u32, u32, u64), backing: Option<&[u8]>, close: bool) {
    let (cluster, table, size) = shape;
    let geometry = Geometry::new(cluster, table).expect("a legal shape");
    fs::write(lab.path("x.qed"), "").expect("room in /tmp");
    let storage = writable(lab, "x.qed");
    let name = CreateBacking { name: b"base.raw".to_vec(), format: BackingFormat::Raw };
    let backing_file = backing.map(|_| name);
    let new = CreateOptions { geometry, image_size: size, backing: backing_file, layout };
    create(&*storage, &new).expect("a new image");
    let expected = fs::File::create(lab.path("x.raw")).expect("room in /tmp");
    expected.set_len(size).expect("room in /tmp");
    let expected: Arc<dyn Storage> = {
        drop(expected);
        writable(lab, "x.raw")
    };
    let below = backing.map(|bytes| {
        fs::write(lab.path("base.raw"), bytes).expect("room in /tmp");
        expected.write_at(bytes, 0).expect("room in /tmp");
        let raw = RawFile::open(Arc::new(MemoryStorage::new(bytes.to_vec())));
        Arc::new(raw.expect("memory")) as Arc<dyn qed_core::VirtualDisk>
    });
    let gate = GivenBacking(below);
    let context = WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Refuse);
    let image = Image::open(storage, &context).expect("a new image");
    let mut random = Random::new(u64::from(cluster) + u64::from(table));
    for step in 0..24 {
        let at = random.below(size / 512) * 512;
        let len = (512 * (1 + random.below(40))).min(size - at);
        if step % 5 == 4 {
            let whole = (u64::from(cluster) * (1 + random.below(3))).min(size);
            let at = (at / u64::from(cluster) * u64::from(cluster)).min(size - whole);
            image
                .write_zeroes(GuestOffset::new(at), whole, ZeroMode::IfNeeded)
                .expect("room in /tmp");
            expected.write_zeroes(at..at + whole).expect("room in /tmp");
        } else {
            let bytes = noise(&mut random, len);
            image.write_at(&bytes, GuestOffset::new(at)).expect("room in /tmp");
            expected.write_at(&bytes, at).expect("room in /tmp");
        }
    }
    image.flush().expect("room in /tmp");
    if close {
        image.close().expect("room in /tmp");
    }
}

#[test]
fn every_shape_and_layout_is_clean_for_qemu_and_reads_the_same() {
    for shape in SHAPES {
        for layout in LAYOUTS {
            for backing in [None, Some(vec![0x77; 300_000 / 512 * 512])] {
                let lab = Lab::new();
                make(&lab, layout, shape, backing.as_deref(), true);
                let storage = writable(&lab, "x.qed");
                let planned = plan_qed_to_qcow2(&storage, &options(RecoveryPolicy::Refuse));
                let done = qed_to_qcow2(&storage, &options(RecoveryPolicy::Refuse));
                let what = format!("{shape:?} {layout:?} {}", backing.is_some());
                let done = done.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_eq!(planned.expect("the same"), done, "{what}");
                assert_eq!(storage.len().expect("a file"), done.new_len, "{what}");
                assert_eq!(u64::from(done.cluster_len), u64::from(shape.0).min(2 << 20), "{what}");
                drop(storage);
                lab.run("check -f qcow2 x.qed");
                lab.run("compare -f qcow2 -F raw x.qed x.raw");
            }
        }
    }
}

#[test]
fn journals_left_behind_are_replayed_first() {
    for shape in [SHAPES[1], SHAPES[4]] {
        let lab = Lab::new();
        make(&lab, LAYOUTS[2], shape, None, false);
        let storage = writable(&lab, "x.qed");
        qed_to_qcow2(&storage, &options(RecoveryPolicy::Refuse)).expect("a journal is enough");
        drop(storage);
        lab.run("check -f qcow2 x.qed\ncompare -f qcow2 -F raw x.qed x.raw");
    }
}

#[test]
fn nothing_of_qed_shows_up_in_space_that_qemu_takes() {
    let lab = Lab::new();
    make(&lab, LAYOUTS[1], SHAPES[4], None, true);
    qed_to_qcow2(&writable(&lab, "x.qed"), &options(RecoveryPolicy::Refuse)).expect("an image");
    lab.run("resize -q -f qcow2 --preallocation=metadata x.qed 64M");
    lab.run("resize -q -f raw x.raw 64M");
    lab.run("check -f qcow2 x.qed\ncompare -f qcow2 -F raw x.qed x.raw");
}

#[test]
fn a_backing_file_without_a_format_needs_one_stated() {
    let lab = Lab::new();
    lab.run(
        "create -q -f qcow2 base.qcow2 1M
        create -q -f qed -b base.qcow2 -F qcow2 x.qed",
    );
    let storage = writable(&lab, "x.qed");
    let before = fs::read(lab.path("x.qed")).expect("a file");
    let refused = qed_to_qcow2(&storage, &options(RecoveryPolicy::Refuse));
    assert!(
        matches!(refused, Err(InPlaceError::Refused(Refusal::BackingFormatUnknown))),
        "{refused:?}"
    );
    assert!(fs::read(lab.path("x.qed")).expect("a file") == before);
    let backing_format = Some("qcow2".to_owned());
    let stated = ToQcow2Options { backing_format, ..options(RecoveryPolicy::Refuse) };
    qed_to_qcow2(&storage, &stated).expect("an image");
    drop(storage);
    lab.run("check -f qcow2 x.qed");
    let info = lab.tool("qemu-img", ["info", "-f", "qcow2", "x.qed"]);
    let info = String::from_utf8_lossy(&info.stdout).into_owned();
    assert!(info.contains("backing file: base.qcow2"), "{info}");
    assert!(info.contains("backing file format: qcow2"), "{info}");
}

#[test]
fn what_qcow2_cannot_hold_is_refused_and_left_alone() {
    let lab = Lab::new();
    // One L1 entry of QCOW2 maps 2 MiB at this cluster size, and there are 4 Mi of them.
    lab.run("create -q -f qed -o cluster_size=4096,table_size=16 x.qed 10G");
    fs::write(lab.path("long.qed"), "").expect("room in /tmp");
    let storage = writable(&lab, "long.qed");
    let geometry = Geometry::new(4096, 16).expect("a legal shape");
    let name = CreateBacking { name: vec![b'n'; 1024], format: BackingFormat::Raw };
    let layout = Layout::Classic;
    let new = CreateOptions { geometry, image_size: 1 << 20, backing: Some(name), layout };
    create(&*storage, &new).expect("a new image");
    let refused = qed_to_qcow2(&storage, &options(RecoveryPolicy::Refuse));
    let found = matches!(
        refused,
        Err(InPlaceError::Options(Qcow2OptionError::BackingNameTooLong { found: 1024, max: 1023 }))
    );
    assert!(found, "{refused:?}");
    // Two entries that name one cluster.
    lab.run("io x.qed write 0 8k");
    let storage = writable(&lab, "x.qed");
    let mut bytes = fs::read(lab.path("x.qed")).expect("a file");
    let l1 = usize::try_from(u64::from_le_bytes(bytes[40..48].try_into().expect("eight")));
    let l1 = l1.expect("small");
    let l2 = usize::try_from(u64::from_le_bytes(bytes[l1..l1 + 8].try_into().expect("eight")));
    let l2 = l2.expect("small");
    bytes.copy_within(l2..l2 + 8, l2 + 8);
    fs::write(lab.path("x.qed"), &bytes).expect("room in /tmp");
    let refused = qed_to_qcow2(&storage, &options(RecoveryPolicy::Refuse));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("is named twice"), "{refused}");
    assert!(fs::read(lab.path("x.qed")).expect("a file") == bytes);
}
