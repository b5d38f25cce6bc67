//! Every shape of QCOW2 image that `qemu-img` makes reads and maps as QEMU reads and maps it.

use std::fs;

use qed_convert::qcow2::{Qcow2Compression, Qcow2SnapshotSelector};
use qed_core::{GuestExtentKind, VirtualDisk};

use crate::lab::{Random, assert_same};
use crate::qcow2_lab::{Lab, MapEntry, bytes_of, index, map_of};

/// Writes of every kind over an image that is compressed already: data, partial clusters, zeros
/// with and without a place, discarded clusters, compressed clusters between plain ones.
const CHANGES: &str = "
    io top.qcow2 write -P 17 100k 30k; write -P 18 1m 512; write -z 300k 200k; write -P 19 340k 1k
    io top.qcow2 write -z -u 1536k 256k; discard 2m 300k; write -P 20 2100k 70k
    io top.qcow2 write -P 21 2621440 131072; write -P 22 3145728 512
";

#[track_caller]
fn check_like_qemu(lab: &Lab, what: &str) {
    let image = lab.open("top.qcow2");
    let expected = lab.qemu_bytes("top.qcow2", "-f qcow2");
    for request_len in [1 << 20, 4096 - 512] {
        assert_same(&bytes_of(&image, request_len), &expected, what);
    }
    assert_eq!(map_of(&image), lab.qemu_map("top.qcow2"), "{what}");
}

#[test]
fn every_cluster_size_version_compression_and_layout() {
    for bits in 9..=21 {
        let lab = Lab::new();
        let mut shapes = vec![
            "compat=0.10".to_owned(),
            "compat=1.1,lazy_refcounts=on".to_owned(),
            "compression_type=zstd".to_owned(),
        ];
        if bits >= 14 {
            shapes.push("extended_l2=on".to_owned());
            shapes.push("extended_l2=on,compression_type=zstd".to_owned());
        }
        for shape in shapes {
            let options = format!("cluster_size={},{shape}", 1_u64 << bits);
            lab.run(&format!(
                "convert -c -f raw -O qcow2 -o {options} source.raw top.qcow2
                 resize -q top.qcow2 3146240"
            ));
            let changes = CHANGES.lines().filter(|line| {
                // QEMU cannot discard below a cluster, nor keep zeros in version 2.
                !(shape.contains("0.10") && line.contains("-z"))
            });
            lab.run(&changes.collect::<Vec<_>>().join("\n"));
            check_like_qemu(&lab, &options);
            let header = lab.open("top.qcow2").header().clone();
            assert_eq!(header.cluster_size(), 1 << bits);
            assert_eq!(header.compat(), if shape.contains("0.10") { "0.10" } else { "1.1" });
            assert_eq!(header.has_extended_l2(), shape.contains("extended"));
            assert_eq!(header.has_lazy_refcounts(), shape.contains("lazy"));
            let zstd = header.compression() == Qcow2Compression::Zstd;
            assert_eq!(zstd, shape.contains("zstd"));
        }
    }
}

/// Name, and the script that makes `top.qcow2`.
const IMAGES: &[(&str, &str)] = &[
    ("empty", "create -q -f qcow2 top.qcow2 0"),
    ("nothing written", "create -q -f qcow2 top.qcow2 64M"),
    ("one sector", "create -q -f qcow2 top.qcow2 512\nio top.qcow2 write -P 1 0 512"),
    (
        "far apart",
        "create -q -f qcow2 top.qcow2 100M
         io top.qcow2 write -P 1 0 1; write -P 2 60M 64k; write -P 3 104857088 512",
    ),
    ("refcounts of one bit", "convert -O qcow2 -o refcount_bits=1 source.raw top.qcow2"),
    ("refcounts of 64 bits", "convert -O qcow2 -o refcount_bits=64 source.raw top.qcow2"),
    ("falloc", "create -q -f qcow2 -o preallocation=falloc top.qcow2 4M"),
    ("full", "create -q -f qcow2 -o preallocation=full top.qcow2 4M"),
    (
        "full with changes",
        "create -q -f qcow2 -o preallocation=full top.qcow2 4M
         io top.qcow2 write -P 5 1M 1M; write -z 1536k 64k; discard 3M 512k",
    ),
    (
        "metadata with extended L2",
        "create -q -f qcow2 -o preallocation=metadata,extended_l2=on top.qcow2 4M
         io top.qcow2 write -P 5 1M 3k",
    ),
    (
        "subclusters",
        "create -q -f qcow2 -o extended_l2=on,cluster_size=128k top.qcow2 2M
         io top.qcow2 write -P 1 4k 4k; write -P 2 12k 4k; write -z 20k 8k; write -P 3 124k 12k
         io top.qcow2 write -z 256k 128k; write -P 4 300k 1k; write -c -P 5 512k 128k
         io top.qcow2 write -P 6 520k 3k; write -z 1M 128k; write -P 7 1M 4k",
    ),
    (
        "compressed over backing",
        "create -q -f qcow2 -F raw -b source.raw top.qcow2
         io top.qcow2 write -c -P 9 64k 64k; write -c -P 10 1M 128k; write -z 256k 64k",
    ),
    (
        "raw below",
        "create -q -f qcow2 -F raw -b source.raw top.qcow2
         io top.qcow2 write -P 9 60k 64k; write -z 256k 64k",
    ),
    (
        "raw below that is shorter and ends inside a sector",
        "convert -O raw source.raw short.raw
         resize -q -f raw --shrink short.raw 1000100
         create -q -f qcow2 -F raw -b short.raw top.qcow2 4M
         io top.qcow2 write -P 9 2M 64k; write -z 3M 64k",
    ),
    (
        "shorter overlay",
        "create -q -f qcow2 -F raw -b source.raw top.qcow2 1M
         io top.qcow2 write -P 9 900k 64k",
    ),
    (
        "qed below",
        "convert -O qed source.raw base.qed
         create -q -f qcow2 -F qed -b base.qed top.qcow2
         io top.qcow2 write -P 9 60k 64k",
    ),
    (
        "four levels, some of other sizes and cluster sizes",
        "convert -O qcow2 -c source.raw a.qcow2
         create -q -f qcow2 -F qcow2 -b a.qcow2 -o cluster_size=4k b.qcow2 2M
         io b.qcow2 write -P 1 1000k 5k; write -z 0 8k
         create -q -f qcow2 -F qcow2 -b b.qcow2 -o cluster_size=2M c.qcow2 5M
         io c.qcow2 write -P 2 4M 1k
         create -q -f qcow2 -F qcow2 -b c.qcow2 -o extended_l2=on,cluster_size=64k top.qcow2 6M
         io top.qcow2 write -P 3 1M 2k; write -P 4 4M 2k; write -z 1100k 4k",
    ),
    (
        "version 2 over backing",
        "create -q -f qcow2 -o compat=0.10 -F raw -b source.raw top.qcow2 4M
         io top.qcow2 write -P 1 1M 1M; discard 1M 512k",
    ),
    (
        "backing file taken away again",
        "create -q -f qcow2 -F raw -b source.raw top.qcow2
         io top.qcow2 write -P 1 1M 1M
         rebase -u -b '' top.qcow2",
    ),
    (
        "shrunk and grown",
        "convert -O qcow2 source.raw top.qcow2
         resize -q --shrink top.qcow2 1M
         resize -q top.qcow2 5M
         io top.qcow2 write -P 1 4M 1k",
    ),
];

#[test]
fn images_of_many_histories() {
    for (name, script) in IMAGES {
        let lab = Lab::new();
        lab.run(script);
        check_like_qemu(&lab, name);
    }
}

/// QEMU guesses preallocated metadata from refcounts and then asks the file system whether data is
/// zero; the tables say data.
#[test]
fn preallocated_metadata_is_data() {
    let lab = Lab::new();
    lab.run("create -q -f qcow2 -o preallocation=metadata top.qcow2 4M");
    let image = lab.open("top.qcow2");
    assert_same(&bytes_of(&image, 1 << 16), &vec![0; 4 << 20], "bytes");
    let map = map_of(&image);
    assert!(matches!(map[..], [MapEntry { kind: GuestExtentKind::Data { .. }, .. }]), "{map:?}");
}

#[test]
fn small_reads_in_any_order_agree_with_large_ones() {
    let lab = Lab::new();
    lab.run("convert -c -O qcow2 source.raw top.qcow2");
    let image = lab.open("top.qcow2");
    let expected = fs::read(lab.path("source.raw")).expect("written by the lab");
    let mut random = Random::new(7);
    for _ in 0..500 {
        let at = index(&mut random, expected.len());
        let len = index(&mut random, 100_000).min(expected.len() - at);
        let mut bytes = vec![0xee; len];
        VirtualDisk::read_at(&image, &mut bytes, at as u64).expect("a good image");
        assert_same(&bytes, &expected[at..at + len], &format!("{len} bytes at {at}"));
    }
}

#[test]
fn many_threads_read_one_image() {
    let lab = Lab::new();
    lab.run("convert -c -O qcow2 -o cluster_size=4k source.raw top.qcow2");
    let image = lab.open("top.qcow2");
    let expected = fs::read(lab.path("source.raw")).expect("written by the lab");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (image, expected) = (&image, &expected);
            scope.spawn(move || {
                for at in (thread * 1000..expected.len()).step_by(50_000) {
                    let end = (at + 10_000).min(expected.len());
                    let mut bytes = vec![0; end - at];
                    VirtualDisk::read_at(image, &mut bytes, at as u64).expect("a good image");
                    assert_same(&bytes, &expected[at..end], &format!("at {at}"));
                }
            });
        }
    });
}

#[test]
fn snapshots_are_found_by_id_and_name_and_keep_their_size() {
    let lab = Lab::new();
    lab.run(
        "create -q -f qcow2 top.qcow2 1M
         io top.qcow2 write -P 1 0 64k
         snapshot -c first top.qcow2
         resize -q top.qcow2 3M
         io top.qcow2 write -P 2 0 64k; write -P 3 2M 64k; write -c -P 4 1M 64k
         snapshot -c second top.qcow2
         snapshot -c 1 top.qcow2
         io top.qcow2 write -P 5 0 128k; write -z 1M 64k; discard 2M 64k",
    );
    check_like_qemu(&lab, "the image itself");
    for (text, qemu, size) in [
        ("first", "-l first", 1 << 20),
        ("second", "-l second", 3 << 20),
        // The id comes before the name.
        ("1", "-l 1", 1 << 20),
        ("3", "-l 3", 3 << 20),
        ("snapshot.name=1", "-l snapshot.name=1", 3 << 20),
        ("snapshot.id=2,snapshot.name=second", "-l snapshot.id=2,snapshot.name=second", 3 << 20),
    ] {
        let selector = Qcow2SnapshotSelector::parse(text.as_bytes());
        let image = lab.open_snapshot("top.qcow2", selector);
        assert_eq!(image.image_size(), size, "{text}");
        let expected = lab.qemu_bytes("top.qcow2", qemu);
        // QEMU gives every snapshot the size that the image has now.
        let expected = &expected[..usize::try_from(size).expect("small")];
        assert_same(&bytes_of(&image, 1 << 16), expected, text);
    }
    let names: Vec<_> =
        lab.open("top.qcow2").snapshots().iter().map(|one| one.name.clone()).collect();
    assert_eq!(names, [b"first".to_vec(), b"second".to_vec(), b"1".to_vec()]);
}

#[test]
fn a_snapshot_keeps_what_shrinking_the_image_took_away() {
    let lab = Lab::new();
    lab.run(
        "convert -O qcow2 source.raw top.qcow2
         snapshot -c all top.qcow2
         resize -q --shrink top.qcow2 64k",
    );
    let image = lab.open_snapshot("top.qcow2", Qcow2SnapshotSelector::parse(b"all"));
    let expected = fs::read(lab.path("source.raw")).expect("written by the lab");
    assert_same(&bytes_of(&image, 1 << 20), &expected, "the snapshot");
}

#[test]
fn bitmaps_are_listed_and_otherwise_ignored() {
    let lab = Lab::new();
    lab.run(
        "convert -O qcow2 source.raw top.qcow2
         bitmap --add top.qcow2 first
         bitmap --add --disable -g 128k top.qcow2 second",
    );
    check_like_qemu(&lab, "with bitmaps");
    let bitmaps = lab.open("top.qcow2").read_bitmaps().expect("a good image");
    let seen: Vec<_> = bitmaps
        .iter()
        .map(|bitmap| (bitmap.name.as_slice(), bitmap.granularity, bitmap.auto, bitmap.in_use))
        .collect();
    let expected: [(&[u8], _, _, _); 2] =
        [(b"first", 65536, true, false), (b"second", 131_072, false, false)];
    assert_eq!(seen, expected);
}
