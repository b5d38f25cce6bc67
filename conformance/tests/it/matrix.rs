//! Images that one of the two writes and the other reads: every shape that QEMU opens up to 2 MiB
//! clusters, alone and over backing files.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use qed_fuzz::{Operation, content, qemu_img, qemu_io, qemu_io_command};
use qed_spec::Geometry;

use crate::support::{
    Folder, Under, assert_equal, checked, create_image, create_raw, open, open_raw, shape_option,
    shapes, words, write_image, write_raw,
};

/// Beyond it QEMU may give up over clusters of one table that are not allocated: QED-QEMU-19.
const LONGEST_RUN: u64 = 2 << 30;
const COMPARE: [&str; 5] = ["compare", "-f", "qed", "-F", "raw"];

#[test]
fn qemu_reads_what_we_write() {
    for_each(|scene| {
        create_image(&scene.image, scene.geometry, scene.image_size, scene.under);
        write_image(&scene.image, &scene.operations());
        assert!(checked(&scene.image).is_clean());
    });
}

#[test]
fn we_read_what_qemu_writes() {
    for_each(|scene| {
        scene.create_by_qemu();
        scene.write_by_qemu(&scene.image, "qed", &scene.operations());
        assert_equal(&*open(&scene.image), &*open_raw(&scene.expected));
        let report = checked(&scene.image);
        assert!(report.is_clean() && !report.dirty, "{:?}", report.findings);
    });
}

#[test]
fn we_read_what_qemu_converts() {
    for_each(|scene| {
        let shape = shape_option(scene.geometry);
        let mut options = vec!["convert", "-f", "raw", "-O", "qed", "-o", shape.as_str()];
        if let Some(format) = scene.under.format() {
            options.extend(["-B", "backing", "-F", format]);
        }
        qemu_img(words(&options, &[scene.expected.clone(), scene.image.clone()])).success();
        assert_equal(&*open(&scene.image), &*open_raw(&scene.expected));
        assert!(checked(&scene.image).is_clean());
    });
}

/// The second L2 table of large shapes, where QEMU can only be asked about single places.
#[test]
fn both_find_what_the_other_wrote_through_the_second_table() {
    for geometry in open_in_qemu().filter(|shape| shape.l2_coverage_bytes() > LONGEST_RUN) {
        let folder = Folder::new();
        let (ours, theirs) = (folder.file("ours"), folder.file("theirs"));
        let far = geometry.l2_coverage_bytes() + geometry.cluster_size_bytes();
        let [near, far] = [0..512, far..far + 512];
        let image_size = far.end + 512;

        create_image(&ours, geometry, image_size, Under::Nothing);
        let write = |range: &Range<u64>, fill| Operation::Write { range: range.clone(), fill };
        write_image(&ours, &[write(&near, 1), write(&far, 2)]);
        let byte = |range: &Range<u64>, fill| content(fill, range.clone())[0];
        let read = |range: &Range<u64>, fill| {
            format!("read -q -P {} {} 512", byte(range, fill), range.start)
        };
        qemu_io(&["-f", "qed"], &ours, &[read(&near, 1), read(&far, 2)]).success();
        qemu_img(words(&["check", "-q", "-f", "qed"], &[ours])).success();

        create_image(&theirs, geometry, image_size, Under::Nothing);
        let [first, second] = [near.start, far.start].map(|at| format!("write -q -P 7 {at} 512"));
        qemu_io(&["-f", "qed"], &theirs, &[first, second]).success();
        for range in [near, far] {
            let mut sector = [0; 512];
            open(&theirs).read_at(&mut sector, range.start).unwrap();
            assert_eq!(sector, [7; 512], "{}", shape_option(geometry));
        }
        assert!(checked(&theirs).is_clean());
    }
}

/// One image to be, and beside it what it has to read as.
struct Scene {
    folder: Folder,
    geometry: Geometry,
    image_size: u64,
    under: Under,
    image: PathBuf,
    expected: PathBuf,
}

/// The shapes that QEMU opens with clusters of 4 KiB to 2 MiB.
fn open_in_qemu() -> impl Iterator<Item = Geometry> {
    shapes().filter(|shape| shape.opens_in_qemu() && shape.cluster_size_bytes() <= 2 << 20)
}

/// Makes each image of the matrix and has QEMU look at it.
fn for_each(make: impl Fn(&Scene) + Sync) {
    assert_eq!(open_in_qemu().count(), 39, "four table sizes each, but not 16 at 2 MiB");
    for geometry in open_in_qemu() {
        for under in Under::ALL {
            eprintln!("{} over {under:?}", shape_option(geometry));
            let scene = Scene::new(geometry, under);
            make(&scene);
            scene.assert_qemu_agrees();
        }
    }
}

impl Scene {
    fn new(geometry: Geometry, under: Under) -> Self {
        let folder = Folder::new();
        let (image, expected) = (folder.file("image"), folder.file("expected"));
        // Reaches into a second L2 table where it may, and ends inside a cluster.
        let first = geometry.l2_coverage_bytes().min(LONGEST_RUN);
        let image_size = first + 2 * geometry.cluster_size_bytes() + 3 * 512;
        let scene = Self { folder, geometry, image_size, under, image, expected };
        scene.create_backing();
        create_raw(&scene.expected, image_size);
        if under != Under::Nothing {
            write_raw(&scene.expected, &scene.backing_operations());
        }
        write_raw(&scene.expected, &scene.operations());
        scene
    }

    /// The backing file ends before the image, inside a cluster of the second table.
    fn create_backing(&self) {
        let path = self.folder.file("backing");
        let size = self.image_size - self.geometry.cluster_size_bytes() - 512;
        match self.under {
            Under::Nothing => {}
            Under::Raw => {
                create_raw(&path, size);
                write_raw(&path, &self.backing_operations());
            }
            Under::Qed => {
                create_image(&path, self.geometry, size, Under::Nothing);
                write_image(&path, &self.backing_operations());
            }
        }
    }

    fn backing_operations(&self) -> Vec<Operation> {
        let (cluster, second) = self.places();
        vec![
            Operation::Write { range: 0..6 * cluster, fill: 100 },
            Operation::Write { range: second - 512..second + 512, fill: 101 },
        ]
    }

    /// Parts of clusters, runs of them, zeros over the backing file, both L2 tables, both ends.
    fn operations(&self) -> Vec<Operation> {
        let (cluster, second) = self.places();
        let end = self.image_size;
        vec![
            Operation::WriteZeroes { range: 3 * cluster..5 * cluster },
            Operation::Write { range: 0..1000, fill: 1 },
            Operation::Write { range: cluster + 512..2 * cluster + 1024, fill: 2 },
            Operation::Write { range: 8 * cluster..10 * cluster, fill: 3 },
            Operation::Write { range: second - cluster..second + cluster, fill: 4 },
            Operation::Write { range: end - 700..end, fill: 5 },
            Operation::Write { range: 9 * cluster..9 * cluster + 512, fill: 6 },
        ]
    }

    /// The cluster size, and where the second L2 table begins or would.
    fn places(&self) -> (u64, u64) {
        let cluster = self.geometry.cluster_size_bytes();
        (cluster, self.image_size - 2 * cluster - 3 * 512)
    }

    fn create_by_qemu(&self) {
        let shape = shape_option(self.geometry);
        let size = self.image_size.to_string();
        let mut options = vec!["create", "-q", "-f", "qed", "-o", &shape];
        if let Some(format) = self.under.format() {
            options.extend(["-b", "backing", "-F", format]);
        }
        let image = [self.image.clone()];
        qemu_img(words(&options, &image).chain([OsStr::new(&size)])).success();
    }

    fn write_by_qemu(&self, path: &Path, format: &str, operations: &[Operation]) {
        let source = |number: usize| self.folder.file(&format!("source-{number}"));
        let commands: Vec<String> = operations
            .iter()
            .enumerate()
            .map(|(number, operation)| qemu_io_command(operation, &source(number)).unwrap())
            .collect();
        let answer = qemu_io(&["-f", format], path, &commands).success();
        assert_eq!(answer.stdout, "", "{commands:?}");
    }

    /// `qemu-img` finds the image in order and reads it as expected.
    fn assert_qemu_agrees(&self) {
        qemu_img(words(&["check", "-q", "-f", "qed"], std::slice::from_ref(&self.image))).success();
        qemu_img(words(&COMPARE, &[self.image.clone(), self.expected.clone()])).success();
    }
}
