//! Overlays that QEMU reads wrongly or cannot change.

use std::path::PathBuf;

use qed_core::{BackingFormat, CreateBacking, Shrink};
use qed_fuzz::Operation;
use qed_spec::{Geometry, GuestOffset};

use super::{img, qemu_does, write};
use crate::support::{
    Folder, Under, close, create_image, create_raw, number_at, open, open_for_writing, set_number,
    write_image, write_raw,
};

const CLUSTER: u64 = 4096;

/// An overlay of 1 MiB over a raw disk of 2 MiB without a zero byte.
fn overlay(folder: &Folder, name: &str) -> PathBuf {
    let (image, backing) = (folder.file(name), folder.file("backing"));
    if !backing.exists() {
        create_raw(&backing, 2 << 20);
        let sectors = (0..2 << 20).step_by(512);
        let fill = |at: u64| (at / 512).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7];
        let ones: Vec<Operation> =
            sectors.map(|at| write(at..at + 512, 1_u8.wrapping_sub(fill(at)))).collect();
        write_raw(&backing, &ones);
    }
    create_image(&image, Geometry::new(4096, 2).unwrap(), 1 << 20, Under::Raw);
    image
}

// spec-test: QED-QEMU-11
#[test]
fn a_write_to_part_of_a_zero_cluster_keeps_the_zeros_here() {
    let folder = Folder::new();
    let (ours, theirs) = (overlay(&folder, "ours"), overlay(&folder, "theirs"));
    let zeroes = Operation::WriteZeroes { range: 0..CLUSTER };
    write_image(&ours, &[zeroes, write(0..512, 9)]);
    let kept = qemu_does(&ours, &["read -P 0 512 3584"]).success();
    assert!(!kept.stdout.contains("failed"), "{}", kept.stdout);

    let back = qemu_does(&theirs, &["write -q -z 0 4k", "write -q 0 512", "read -P 1 512 3584"]);
    assert_eq!(back.code, Some(0), "the backing file's bytes come back: {}", back.stdout);
    assert!(!back.stdout.contains("failed"), "{}", back.stdout);
}

// spec-test: QED-QEMU-12
#[test]
fn an_overlay_grows_over_a_longer_backing_file_here() {
    let folder = Folder::new();
    let image = overlay(&folder, "image");
    let refused = qemu_does(&image, &["truncate 2M"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);

    let open_image = open_for_writing(&image);
    open_image.resize(2 << 20, Shrink::Refuse).unwrap();
    close(open_image);
    let zeros = qemu_does(&image, &["read -P 0 1M 1M", "read -P 1 0 1M"]).success();
    assert!(!zeros.stdout.contains("failed"), "{}", zeros.stdout);
}

// spec-test: QED-QEMU-13
#[test]
fn an_unknown_compatible_bit_keeps_only_qemu_from_a_rebase() {
    let folder = Folder::new();
    let image = overlay(&folder, "image");
    set_number(&image, 24, 1 << 40);
    let refused = img(&["rebase", "-u", "-f", "qed", "-F", "raw", "-b", "other"], &image);
    assert!(refused.code == Some(1) && refused.stderr.contains("Operation not supported"));

    let open_image = open_for_writing(&image);
    let other = CreateBacking { name: b"./backing".to_vec(), format: BackingFormat::Raw };
    open_image.set_backing(Some(&other)).unwrap();
    close(open_image);
    let mut sector = [0; 512];
    open(&image).read_at(&mut sector, 0).unwrap();
    assert_eq!(sector, [1; 512]);
    assert_eq!(number_at(&image, 24), 1 << 40, "the bit is kept");
    let mut last = [0; 512];
    open_for_writing(&image).read_at(&mut last, GuestOffset::new((1 << 20) - 512)).unwrap();
    assert_eq!(last, [1; 512]);
}
