//! QED to raw in place: what a raw file was becomes one again, and what lies elsewhere is refused.

use std::fs;
use std::sync::Arc;

use qed_convert::in_place::{
    FromRawOptions, InPlaceError, PlanFile, Refusal, ToRawOptions, plan_qed_to_raw, qed_to_raw,
    raw_to_qed,
};
use qed_core::{
    Image, Layout, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, ZeroMode, amend,
};
use qed_io::{FileOptions, FileStorage, Storage};
use qed_spec::GuestOffset;

use crate::lab::{Random, noise};
use crate::qcow2_lab::Lab;

const BACK: ToRawOptions<'_> =
    ToRawOptions { lock: LockPolicy::Take, recovery: RecoveryPolicy::Refuse };

fn writable(lab: &Lab, name: &str) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(lab.path(name), FileOptions::READ_WRITE).expect("a file"))
}

fn open(storage: &Arc<dyn Storage>) -> Image {
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
    Image::open(storage.clone(), &context).expect("an image")
}

/// Makes `x.raw` of noise and holes, turns it into a QED image, and lets a guest write.
fn make(lab: &Lab, cluster_len: u32, len: u64) -> Vec<u8> {
    let mut random = Random::new(len);
    let mut disk = vec![0; usize::try_from(len).expect("small")];
    for part in disk.chunks_mut(40_000).step_by(3) {
        part.copy_from_slice(&noise(&mut random, part.len() as u64));
    }
    fs::write(lab.path("x.raw"), &disk).expect("room in /tmp");
    let storage = writable(lab, "x.raw");
    let plan = PlanFile::beside(&lab.path("x.raw"));
    let options = FromRawOptions { lock: LockPolicy::Take, cluster_len };
    raw_to_qed(&*storage, &plan, &options).expect("a QED image");
    let image = open(&storage);
    for at in [0, len / 2 / 512 * 512, len - 512] {
        let bytes = noise(&mut random, 512);
        image.write_at(&bytes, GuestOffset::new(at)).expect("room in /tmp");
        let at = usize::try_from(at).expect("small");
        disk[at..at + 512].copy_from_slice(&bytes);
    }
    image.close().expect("room in /tmp");
    disk
}

#[test]
fn what_a_raw_file_was_becomes_one_again() {
    for cluster_len in [4 << 10, 16 << 10, 64 << 10, 1 << 20] {
        for len in [512, 65536, (3 << 20) + 512] {
            let lab = Lab::new();
            let disk = make(&lab, cluster_len, len);
            let storage = writable(&lab, "x.raw");
            let plan = PlanFile::beside(&lab.path("x.raw"));
            let what = format!("{len} in clusters of {cluster_len}");
            let planned = plan_qed_to_raw(&storage, &BACK).expect(&what);
            let done = qed_to_raw(&storage, &plan, &BACK).expect(&what);
            assert_eq!(planned, done, "{what}");
            assert!(fs::read(lab.path("x.raw")).expect("a file") == disk, "{what}");
            assert!(!plan.path().exists(), "{what}");
        }
    }
}

#[test]
fn zero_clusters_become_holes() {
    let lab = Lab::new();
    let mut disk = make(&lab, 65536, 1 << 20);
    let storage = writable(&lab, "x.raw");
    let image = open(&storage);
    image
        .write_zeroes(GuestOffset::new(3 << 16), 2 << 16, ZeroMode::IfNeeded)
        .expect("room in /tmp");
    image.write_zeroes(GuestOffset::new(0), 1 << 16, ZeroMode::IfNeeded).expect("room in /tmp");
    image.close().expect("room in /tmp");
    disk[3 << 16..5 << 16].fill(0);
    disk[..1 << 16].fill(0);
    let plan = PlanFile::beside(&lab.path("x.raw"));
    qed_to_raw(&storage, &plan, &BACK).expect("a raw file");
    assert!(fs::read(lab.path("x.raw")).expect("a file") == disk);
}

#[test]
fn what_is_not_where_a_raw_file_has_it_is_refused_and_left_alone() {
    let cases = [
        ("create -q -f qed x.raw 1M\nio x.raw write 0 1M", "use 'qed convert -O raw'"),
        ("create -q -f qed x.raw 1M\nio x.raw write 512k 4k", "use 'qed convert -O raw'"),
        ("create -q -f qed x.raw 1M", "a table or a cluster lies at 0x10000"),
        ("create -q -f raw b 1M\ncreate -q -f qed -b b -F raw x.raw 1M", "backing file"),
        ("create -q -f qed x.raw 0", "the disk is empty"),
    ];
    for (script, message) in cases {
        let lab = Lab::new();
        lab.run(script);
        let before = fs::read(lab.path("x.raw")).expect("a file");
        let storage = writable(&lab, "x.raw");
        let plan = PlanFile::beside(&lab.path("x.raw"));
        let error = qed_to_raw(&storage, &plan, &BACK).expect_err(script);
        let gate = matches!(&error, InPlaceError::Open(_)) && message == "backing file";
        assert!(gate || error.to_string().contains(message), "{error:?}, not: {message}");
        assert!(fs::read(lab.path("x.raw")).expect("a file") == before, "{script}");
        assert!(!plan.path().exists(), "{script}");
    }
}

#[test]
fn a_first_cluster_that_reads_like_a_superblock_is_refused() {
    for (at, magic) in [(0, b"QED\0"), (2048, b"QEDA"), (8192, b"QEDX"), (12_288, b"QEDX")] {
        let lab = Lab::new();
        make(&lab, 65536, 1 << 20);
        let storage = writable(&lab, "x.raw");
        let image = open(&storage);
        image.write_at(magic, GuestOffset::new(at)).expect("room in /tmp");
        image.close().expect("room in /tmp");
        let plan = PlanFile::beside(&lab.path("x.raw"));
        let refused = qed_to_raw(&storage, &plan, &BACK);
        assert!(
            matches!(refused, Err(InPlaceError::Refused(Refusal::LooksLikeQed))),
            "{at}: {refused:?}"
        );
    }
}

#[test]
fn an_image_in_compat_mode_loses_its_marks_first() {
    let lab = Lab::new();
    let disk = make(&lab, 65536, 1 << 20);
    let storage = writable(&lab, "x.raw");
    let identity = qed_core::Identity {
        uuid: qed_spec::ImageUuid::new([7; 16]),
        epoch: qed_spec::Epoch::new(8),
    };
    let compat = Layout::Compat(identity);
    amend(&storage, compat, LockPolicy::None, RecoveryPolicy::Refuse).expect("compat mode");
    let plan = PlanFile::beside(&lab.path("x.raw"));
    qed_to_raw(&storage, &plan, &BACK).expect("a raw file");
    assert!(fs::read(lab.path("x.raw")).expect("a file") == disk);
}
