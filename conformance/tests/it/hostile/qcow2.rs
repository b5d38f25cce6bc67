//! QCOW2 sources that claim too much, name what they must not, or hide a bomb.

use std::path::{Path, PathBuf};

use qed_fuzz::{Answer as Told, qemu_img, qemu_io};

use super::Case;
use super::image::{file_of, put};
use crate::support::{Folder, words};

/// Bytes of a cluster, QEMU's default.
const CLUSTER: u64 = 1 << 16;
/// Where QEMU puts the L1 table of a small new image, and the L2 table of its first cluster.
const L1: u64 = 3 * CLUSTER;
const L2: u64 = 4 * CLUSTER;
const CONVERT: &str = "convert -f qcow2 -O raw IMAGE out";

/// Big-endian numbers of the header.
const BACKING_OFFSET: u64 = 8;
const BACKING_LEN: u64 = 16;
const CLUSTER_BITS: u64 = 20;
const SIZE: u64 = 24;
const CRYPT_METHOD: u64 = 32;
const L1_SIZE: u64 = 36;
const L1_OFFSET: u64 = 40;
const REFCOUNT_CLUSTERS: u64 = 56;
const SNAPSHOTS: u64 = 60;
const SNAPSHOTS_OFFSET: u64 = 64;
const INCOMPATIBLE: u64 = 72;
const REFCOUNT_ORDER: u64 = 96;
const HEADER_LEN: u64 = 100;
const EXTENSIONS: u64 = 112;

const INFO: &str = "info -f qcow2 IMAGE";

pub(super) const CASES: &[Case] = &[
    Case::qcow2(
        "qcow2-header-cut-short",
        cut_short,
        &[(INFO, 1, "too short for a QCOW2 header"), (CONVERT, 1, "too short for a QCOW2 header")],
    ),
    Case::qcow2("qcow2-header-noise", noise, &[]),
    Case::qcow2(
        "qcow2-cluster-bits",
        |folder| each32(folder, CLUSTER_BITS, &[0, 8, 22, 63, u32::MAX]),
        &[(INFO, 1, "unsupported cluster size"), (CONVERT, 1, "unsupported cluster size")],
    ),
    Case::qcow2(
        "qcow2-version",
        |folder| each32(folder, 4, &[0, 1, 4, u32::MAX]),
        &[(INFO, 1, "unsupported qcow2 version"), (CONVERT, 1, "unsupported qcow2 version")],
    ),
    Case::qcow2(
        "qcow2-disk-of-2-to-the-63-bytes",
        |folder| patched(folder, |image| put64(image, SIZE, 1 << 63)),
        &[
            (INFO, 1, "too small for the virtual size"),
            (CONVERT, 1, "too small for the virtual size"),
        ],
    ),
    Case::qcow2(
        "qcow2-l1-table-of-16-gibibytes",
        |folder| patched(folder, |image| put32(image, L1_SIZE, 1 << 31)),
        &[(INFO, 1, "is too large"), (CONVERT, 1, "is too large")],
    ),
    Case::qcow2(
        "qcow2-l1-table-past-the-end",
        |folder| patched(folder, |image| put64(image, L1_OFFSET, 1 << 50)),
        &[(CONVERT, 1, "reaches past the end of the file")],
    ),
    Case::qcow2(
        "qcow2-refcounts-of-noise",
        |folder| {
            patched(folder, |image| {
                put32(image, REFCOUNT_CLUSTERS, 1);
                put(image, CLUSTER, &[0xfe; 64]);
            })
        },
        &[(CONVERT, 0, "")],
    ),
    Case::qcow2(
        "qcow2-refcount-order",
        |folder| each32(folder, REFCOUNT_ORDER, &[7, u32::MAX]),
        &[(INFO, 1, "refcounts of"), (CONVERT, 1, "refcounts of")],
    ),
    Case::qcow2(
        "qcow2-header-length",
        |folder| each32(folder, HEADER_LEN, &[0, 71, u32::MAX]),
        &[(INFO, 1, "header length"), (CONVERT, 1, "header length")],
    ),
    Case::qcow2(
        "qcow2-unknown-incompatible-feature",
        |folder| each64(folder, INCOMPATIBLE, &[1 << 5, 1 << 40, 1 << 63]),
        &[(INFO, 0, "unsupported feature: bit"), (CONVERT, 1, "feature")],
    ),
    Case::qcow2(
        "qcow2-external-data-file",
        |folder| patched(folder, |image| put64(image, INCOMPATIBLE, 1 << 2)),
        &[(INFO, 0, "data file raw: false"), (CONVERT, 1, "data file")],
    ),
    Case::qcow2(
        "qcow2-encrypted",
        |folder| each32(folder, CRYPT_METHOD, &[1, 2, 3]),
        &[(CONVERT, 1, "ncrypt")],
    ),
    Case::qcow2(
        "qcow2-extension-past-the-header",
        |folder| {
            patched(folder, |image| {
                put32(image, EXTENSIONS, 0x6803_f857);
                put32(image, EXTENSIONS + 4, u32::MAX);
            })
        },
        &[(INFO, 1, "reaches past the header area"), (CONVERT, 1, "reaches past the header area")],
    ),
    Case::qcow2(
        "qcow2-backing-name-outside-the-header",
        |folder| {
            patched(folder, |image| {
                put64(image, BACKING_OFFSET, CLUSTER - 2);
                put32(image, BACKING_LEN, 4);
            })
        },
        &[(INFO, 1, "backing file name of 4 bytes"), (CONVERT, 1, "backing file name of 4 bytes")],
    ),
    Case::qcow2(
        "qcow2-backing-name-too-long",
        |folder| {
            patched(folder, |image| {
                put64(image, BACKING_OFFSET, 512);
                put32(image, BACKING_LEN, u32::MAX);
            })
        },
        &[(INFO, 1, "not at most 1023 bytes"), (CONVERT, 1, "not at most 1023 bytes")],
    ),
    Case::qcow2(
        "qcow2-backing-name-in-json",
        |folder| over(folder, r#"json:{"driver":"file","filename":"/etc/shadow"}"#),
        &[(INFO, 0, "json"), (CONVERT, 1, "json")],
    ),
    Case::qcow2(
        "qcow2-over-itself",
        |folder| over(folder, "image"),
        &[
            (CONVERT, 1, "infinite loop"),
            ("map --backing-chain -f qcow2 IMAGE", 1, "infinite loop"),
        ],
    ),
    Case::qcow2(
        "qcow2-snapshots-past-the-end",
        |folder| {
            patched(folder, |image| {
                put32(image, SNAPSHOTS, 3);
                put64(image, SNAPSHOTS_OFFSET, 1 << 40);
            })
        },
        &[("convert -l 1 -f qcow2 -O raw IMAGE out", 1, "snapshot")],
    ),
    Case::qcow2(
        "qcow2-four-billion-snapshots",
        |folder| {
            patched(folder, |image| {
                put32(image, SNAPSHOTS, u32::MAX);
                put64(image, SNAPSHOTS_OFFSET, CLUSTER);
            })
        },
        &[("convert -l 1 -f qcow2 -O raw IMAGE out", 1, "snapshot")],
    ),
    Case::qcow2(
        "qcow2-snapshot-name-that-commands-the-terminal",
        |folder| {
            let image = sound(folder, "image");
            let snapshot = ["snapshot", "-c", "\x1b]0;owned\x07\x1b[2J"];
            qemu_img(words(&snapshot, std::slice::from_ref(&image))).success();
            vec![image]
        },
        &[(INFO, 0, "\\x1b]0;owned\\x07\\x1b[2J")],
    ),
    Case::qcow2(
        "qcow2-l1-entry-past-the-end",
        |folder| patched(folder, |image| put64(image, L1, 1 << 50)),
        &[
            (INFO, 0, "qcow2"),
            (CONVERT, 1, "L1[0] is 0x4000000000000: the offset lies past the end"),
        ],
    ),
    Case::qcow2(
        "qcow2-l1-entry-unaligned",
        |folder| patched(folder, |image| put64(image, L1, L2 + 512)),
        &[(INFO, 0, "qcow2"), (CONVERT, 1, "not aligned to clusters")],
    ),
    Case::qcow2(
        "qcow2-l2-entry-past-the-end",
        |folder| patched(folder, |image| put64(image, L2, 1 << 50)),
        &[
            (INFO, 0, "qcow2"),
            (CONVERT, 1, "L1[0] L2[0] is 0x4000000000000: the offset lies past the end"),
        ],
    ),
    Case::qcow2(
        "qcow2-l2-entry-unaligned",
        |folder| patched(folder, |image| put64(image, L2, 5 * CLUSTER + 512)),
        &[(INFO, 0, "qcow2"), (CONVERT, 1, "L1[0] L2[0] is 0x50200: the offset is not aligned")],
    ),
    Case::qcow2(
        "qcow2-l2-entries-into-metadata",
        |folder| {
            patched(folder, |image| {
                put64(image, L2, 0);
                [CLUSTER, L1, L2]
                    .iter()
                    .zip(1..)
                    .for_each(|(at, slot)| put64(image, L2 + 8 * slot, *at));
            })
        },
        &[("map -f qcow2 IMAGE", 0, "Offset")],
    ),
    Case::qcow2(
        "qcow2-zlib-bomb",
        |folder| bomb(folder, "zlib"),
        &[(INFO, 0, "qcow2"), (CONVERT, 1, "more bytes than a cluster")],
    ),
    Case::qcow2(
        "qcow2-zstd-bomb",
        |folder| bomb(folder, "zstd"),
        &[(INFO, 0, "qcow2"), (CONVERT, 1, "more bytes than a cluster")],
    ),
    Case::qcow2(
        "qcow2-compressed-noise",
        compressed_noise,
        &[(INFO, 0, "qcow2"), (CONVERT, 1, "not a whole stream")],
    ),
    Case::qcow2(
        "qcow2-compressed-stream-cut-short",
        |folder| {
            compressed_with(folder, "zlib", |image| {
                let place = stream_of(image);
                put64(image, L2, 1 << 62 | place);
                put(image, place + 16, &[0; 4096]);
            })
        },
        &[(INFO, 0, "qcow2"), (CONVERT, 1, "not a whole stream")],
    ),
    Case::qcow2(
        "qcow2-compressed-stream-past-the-end",
        |folder| compressed_with(folder, "zlib", |image| put64(image, L2, 1 << 62 | 1 << 40)),
        &[(INFO, 0, "qcow2"), (CONVERT, 1, "past the end of the file")],
    ),
];

/// An image of 16 MiB with three clusters written.
fn sound(folder: &Folder, name: &str) -> PathBuf {
    let image = folder.file(name);
    let paths = [image.clone(), "16M".into()];
    qemu_img(words(&["create", "-q", "-f", "qcow2"], &paths)).success();
    let Told { stdout, .. } =
        qemu_io(&["-f", "qcow2"], &image, &["write -q -P 7 0 192k".to_owned()]).success();
    assert_eq!((stdout.as_str(), get64(&image, 40)), ("", L1));
    assert_eq!(get64(&image, L1) & !(1 << 63), L2);
    image
}

fn patched(folder: &Folder, patch: impl Fn(&Path)) -> Vec<PathBuf> {
    let image = sound(folder, "image");
    patch(&image);
    vec![image]
}

fn each32(folder: &Folder, at: u64, values: &[u32]) -> Vec<PathBuf> {
    let image = |value: &u32| {
        let image = sound(folder, &format!("image-{value:x}"));
        put32(&image, at, *value);
        image
    };
    values.iter().map(image).collect()
}

fn each64(folder: &Folder, at: u64, values: &[u64]) -> Vec<PathBuf> {
    let image = |value: &u64| {
        let image = sound(folder, &format!("image-{value:x}"));
        put64(&image, at, *value);
        image
    };
    values.iter().map(image).collect()
}

fn cut_short(folder: &Folder) -> Vec<PathBuf> {
    let whole = std::fs::read(sound(folder, "model")).unwrap();
    let cut = |len: usize| file_of(folder, &format!("image-{len}"), &whole[..len], len as u64);
    (4..104).step_by(11).map(cut).collect()
}

fn noise(folder: &Folder) -> Vec<PathBuf> {
    let image = |seed: u64| {
        let mut random = qed_fuzz::Random::new(seed);
        let noise = (0..512).flat_map(|_| random.next_u64().to_le_bytes());
        let bytes: Vec<u8> = b"QFI\xfb\0\0\0\x03".iter().copied().chain(noise).collect();
        file_of(folder, &format!("image-{seed}"), &bytes, 1 << 20)
    };
    (0..20).map(image).collect()
}

fn over(folder: &Folder, backing: &str) -> Vec<PathBuf> {
    let image = folder.file("image");
    let options = ["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing];
    let paths = [image.clone(), "1M".into()];
    qemu_img(words(&options, &paths)).success();
    vec![image]
}

/// A compressed image, whose first L2 entry is changed.
fn compressed_with(folder: &Folder, codec: &str, patch: impl Fn(&Path)) -> Vec<PathBuf> {
    let raw = folder.file("raw");
    let pages = (0..16_u64).flat_map(|page| qed_fuzz::content(1, page << 12..(page + 1) << 12));
    std::fs::write(&raw, pages.collect::<Vec<u8>>()).unwrap();
    let image = folder.file("image");
    let codec = format!("compression_type={codec}");
    let options = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &codec];
    qemu_img(words(&options, &[raw, image.clone()])).success();
    let table = get64(&image, get64(&image, L1_OFFSET)) & !(1 << 63);
    assert_eq!(table, L2, "where the cases expect the first L2 table");
    patch(&image);
    vec![image]
}

/// A stream that unpacks to far more than a cluster: another image's, with larger clusters.
fn bomb(folder: &Folder, codec: &str) -> Vec<PathBuf> {
    let (raw, large) = (folder.file("zeros"), folder.file("large"));
    std::fs::write(&raw, vec![1; 2 << 20]).unwrap();
    let options = format!("compression_type={codec},cluster_size=2M");
    let convert = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &options];
    qemu_img(words(&convert, &[raw, large.clone()])).success();
    let table = get64(&large, get64(&large, L1_OFFSET)) & !(1 << 63);
    // With clusters of 2 MiB the low 49 bits of a descriptor are the place of the stream.
    let stream = usize::try_from(get64(&large, table) & ((1 << 49) - 1)).unwrap();
    let bytes = std::fs::read(&large).unwrap();
    compressed_with(folder, codec, |image| {
        put(image, stream_of(image), &bytes[stream..bytes.len().min(stream + 8192)]);
    })
}

fn compressed_noise(folder: &Folder) -> Vec<PathBuf> {
    compressed_with(folder, "zlib", |image| put(image, stream_of(image), &[0xa5; 512]))
}

/// Where the first stream is: at 64 KiB clusters the low 54 bits of its descriptor.
fn stream_of(image: &Path) -> u64 {
    get64(image, L2) & ((1 << 54) - 1)
}

fn put32(image: &Path, at: u64, value: u32) {
    put(image, at, &value.to_be_bytes());
}

fn put64(image: &Path, at: u64, value: u64) {
    put(image, at, &value.to_be_bytes());
}

fn get64(image: &Path, at: u64) -> u64 {
    crate::support::number_at(image, at).swap_bytes()
}
