//! Changes of size that QEMU does not do, or does with old bytes.

use qed_core::Shrink;
use qed_spec::Geometry;

use super::{img, qemu_does, write};
use crate::support::{
    Folder, Under, checked, close, create_image, open_for_writing, set_number, write_image,
};

// spec-test: QED-QEMU-16
#[test]
fn a_disk_shrinks_here() {
    let folder = Folder::new();
    let image = folder.file("image");
    create_image(&image, Geometry::new(4096, 2).unwrap(), 1 << 20, Under::Nothing);
    write_image(&image, &[write(0..4096, 1), write(1044480..1 << 20, 2)]);
    let paths = [image.clone(), "512K".into()];
    let resize = ["resize", "-q", "--shrink", "-f", "qed"];
    let refused = qed_fuzz::qemu_img(crate::support::words(&resize, &paths));
    assert!(refused.code == Some(1) && refused.stderr.contains("not supported"), "{refused:?}");

    let open = open_for_writing(&image);
    open.resize(512 << 10, Shrink::Allow).unwrap();
    close(open);
    assert!(checked(&image).is_clean());
    img(&["check", "-q", "-f", "qed"], &image).success();
}

// spec-test: QED-QEMU-18
#[test]
fn a_grown_disk_shows_old_bytes_of_its_last_cluster_only_in_qemu() {
    let folder = Folder::new();
    let (ours, theirs) = (folder.file("ours"), folder.file("theirs"));
    for image in [&ours, &theirs] {
        create_image(image, Geometry::new(4096, 2).unwrap(), 4096, Under::Nothing);
        write_image(image, &[write(0..4096, 1)]);
        // A disk that ends inside its cluster, made so by somebody who does not wipe.
        set_number(image, 48, 512);
    }
    qemu_does(&theirs, &["truncate 4k"]).success();
    let old = qemu_does(&theirs, &["read -P 0 512 3584"]);
    assert!(old.stdout.contains("Pattern verification failed"), "{}", old.stdout);

    let open = open_for_writing(&ours);
    open.resize(4096, Shrink::Refuse).unwrap();
    close(open);
    let zeros = qemu_does(&ours, &["read -P 0 512 3584"]).success();
    assert!(!zeros.stdout.contains("failed"), "{}", zeros.stdout);
}
