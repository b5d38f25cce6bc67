//! Shapes and amounts that QEMU's arithmetic cannot bear.

use qed_fuzz::content;
use qed_spec::Geometry;

use super::{img, qemu_does, write};
use crate::support::{
    Folder, Under, checked, create_image, number_at, open, open_for_writing, set_number,
    shape_option, write_image,
};

/// What the image reads in one sector.
fn sector(image: &std::path::Path, at: u64) -> Vec<u8> {
    let mut sector = vec![0; 512];
    open(image).read_at(&mut sector, at).unwrap();
    sector
}

// spec-test: QED-QEMU-01
#[test]
fn a_table_of_one_cluster_is_made_and_not_opened_by_qemu() {
    for cluster_bits in [12, 16, 21] {
        let folder = Folder::new();
        let (ours, theirs) = (folder.file("ours"), folder.file("theirs"));
        let shape = Geometry::new(1 << cluster_bits, 1).unwrap();
        let options = shape_option(shape);
        let create = ["create", "-q", "-f", "qed", "-o", &options];
        let size = "1M".into();
        qed_fuzz::qemu_img(crate::support::words(&create, &[theirs.clone(), size])).success();
        let refused = img(&["info", "-f", "qed"], &theirs);
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("QED table offset is invalid"), "{}", refused.stderr);

        let far = shape.l2_coverage_bytes();
        create_image(&ours, shape, far + 512, Under::Nothing);
        write_image(&ours, &[write(0..512, 1), write(far..far + 512, 2)]);
        assert_eq!(sector(&ours, far), content(2, far..far + 512));
        assert!(checked(&ours).is_clean());
        assert_eq!(open(&theirs).len(), 1 << 20);
    }
}

// spec-test: QED-QEMU-02
#[test]
fn shapes_whose_size_wraps_are_refused_by_qemu() {
    for (cluster_size, table_size) in [(4 << 20, 4), (8 << 20, 2), (64 << 20, 16)] {
        let folder = Folder::new();
        let (ours, theirs) = (folder.file("ours"), folder.file("theirs"));
        let shape = Geometry::new(cluster_size, table_size).unwrap();
        let create = ["create", "-q", "-f", "qed", "-o", &shape_option(shape)];
        let refused = qed_fuzz::qemu_img(crate::support::words(&create, &[theirs, "1M".into()]));
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("less than 0 bytes"), "{}", refused.stderr);

        let end = 1 << 50;
        create_image(&ours, shape, end, Under::Nothing);
        write_image(&ours, &[write(end - 512..end, 3)]);
        assert_eq!(sector(&ours, end - 512), content(3, end - 512..end));
        assert!(checked(&ours).is_clean());
    }
}

// spec-test: QED-QEMU-04
#[test]
fn a_file_of_many_clusters_has_leaks_only_for_qemu() {
    let folder = Folder::new();
    let image = folder.file("image");
    create_image(&image, Geometry::new(4096, 4).unwrap(), 16 << 20, Under::Nothing);
    let parts: Vec<_> = (0..8).map(|part| write(part << 21..(part + 1) << 21, 9)).collect();
    write_image(&image, &parts);
    let report = checked(&image);
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.statistics.allocated_clusters, 4096);
    let told = img(&["check", "-f", "qed"], &image);
    assert_eq!(told.code, Some(3), "leaks that are none: {}{}", told.stdout, told.stderr);
}

// spec-test: QED-QEMU-05
#[test]
fn a_large_write_destroys_its_neighbour_only_in_qemu() {
    let end = 16 << 20;
    let folder = Folder::new();
    let (ours, theirs) = (folder.file("ours"), folder.file("theirs"));
    for image in [&ours, &theirs] {
        create_image(image, Geometry::new(4096, 16).unwrap(), 64 << 20, Under::Nothing);
    }
    write_image(&ours, &[write(end..end + 4096, 7), write(0..end, 9)]);
    assert_eq!(sector(&ours, end), content(7, end..end + 512));
    assert!(checked(&ours).is_clean());

    qemu_does(&theirs, &["write -q -P 7 16M 4k", "write -q -P 9 0 16M"]).success();
    let lost = qemu_does(&theirs, &["read -P 7 16M 4k"]);
    assert_eq!(lost.code, Some(1), "its data is lost: {}", lost.stdout);
    assert!(!checked(&theirs).is_clean(), "and what it left is told here");
}

// spec-test: QED-QEMU-19
#[test]
fn a_run_of_four_gibibytes_stops_only_qemu() {
    for zero in [false, true] {
        let folder = Folder::new();
        let image = folder.file("image");
        let shape = Geometry::new(1 << 20, 1 << 1).unwrap();
        create_image(&image, shape, 8 << 30, Under::Nothing);
        write_image(&image, &[write(0..512, 1)]);
        if zero {
            let table = number_at(&image, shape.cluster_size_bytes());
            (1..1 << 13).for_each(|slot| set_number(&image, table + 8 * slot, 1));
        }
        let stopped = img(&["map", "-f", "qed"], &image);
        assert!(stopped.code.is_none() && stopped.stderr.contains("Assertion"), "{stopped:?}");

        let disk = open(&image);
        let (mut at, mut extents) = (1 << 20, 0);
        while at < disk.len() {
            at += disk.extent_at(at, disk.len() - at).unwrap().len;
            extents += 1;
        }
        assert!(at == disk.len() && extents < 100, "{extents} extents");
        open_for_writing(&image).close().unwrap();
    }
}
