//! `create` writes the bytes that `qemu-img create` writes, for every shape and option.

use std::ffi::OsStr;
use std::path::Path;

use qed_core::{BackingFormat, CreateBacking, CreateError, CreateOptions, Layout, create};
use qed_fuzz::qemu_img;
use qed_io::MemoryStorage;
use qed_spec::{BackingNameError, Geometry, HeaderError};

use crate::support::{Folder, shape_option, shapes, words};

/// What `qemu-img` is told, beside the same for us.
struct Case<'a> {
    geometry: Geometry,
    image_size: u64,
    /// Name and format; QEMU asks for both.
    backing: Option<(&'a str, &'a str)>,
}

// spec-test: QED-QEMU-01, QED-QEMU-02
#[test]
fn every_shape_and_the_ends_of_its_sizes() {
    let mut made = 0;
    for geometry in shapes() {
        let coverage = geometry.l2_coverage_bytes();
        for image_size in [512, 1 << 20, coverage, coverage + 512, geometry.max_image_size_bytes()]
        {
            let case = Case { geometry, image_size, backing: None };
            let Some(theirs) = by_qemu(&case) else {
                // It counts the size that the tables can map modulo 2^64.
                assert!(!geometry.opens_in_qemu() || image_size > i64::MAX.unsigned_abs());
                continue;
            };
            assert!(theirs == by_us(&case).unwrap(), "{} {image_size}", shape_option(geometry));
            made += 1;
        }
    }
    assert!(made > 250, "{made} images were compared");
}

#[test]
fn every_backing_file_name_and_format() {
    let long = "x".repeat(1023);
    let names = ["b", "backing", "../up/and/down", "/absolute", "with space", "ünïcode", &long];
    for geometry in shapes().filter(|shape| shape.opens_in_qemu()).step_by(5) {
        for name in names {
            for format in ["raw", "qed", "qcow2"] {
                let case = Case { geometry, image_size: 1 << 20, backing: Some((name, format)) };
                let theirs = by_qemu(&case).expect("it takes any name that is not opened");
                assert!(theirs == by_us(&case).unwrap(), "{name} {format:?}");
            }
        }
    }
}

// spec-test: QED-QEMU-07
#[test]
fn a_name_that_is_too_long_to_be_read_is_refused_and_qemu_writes_it() {
    let folder = Folder::new();
    let geometry = Geometry::new(1 << 16, 4).unwrap();
    let case = |name| Case { geometry, image_size: 1 << 20, backing: Some((name, "raw")) };
    let (longest, too_long) = ("x".repeat(4095), "x".repeat(4096));

    let theirs = by_qemu(&case(&longest)).unwrap();
    assert!(theirs == by_us(&case(&longest)).unwrap());
    let theirs = by_qemu(&case(&too_long)).expect("QEMU makes the image");
    let image = folder.file("image");
    std::fs::write(&image, theirs).unwrap();
    let answer = qemu_img(words(&["info", "-f", "qed"], &[image]));
    assert!(answer.code == Some(1) && answer.stderr.contains("Failed to read backing filename"));
    let error = by_us(&case(&too_long)).unwrap_err();
    let is_named =
        matches!(error, CreateError::BackingName(BackingNameError::TooLong { found: 4096 }));
    assert!(is_named, "{error:?}");
}

#[test]
fn a_name_that_does_not_fit_the_header_area_is_refused() {
    let geometry = Geometry::new(4096, 2).unwrap();
    let name = "x".repeat(4096 - 64 + 1);
    let case = Case { geometry, image_size: 1 << 20, backing: Some((&name, "raw")) };
    let error = by_us(&case).unwrap_err();
    assert!(matches!(error, CreateError::Header(HeaderError::BackingName(_))), "{error:?}");
}

/// The file that `qemu-img` makes, if it makes one.
fn by_qemu(case: &Case<'_>) -> Option<Vec<u8>> {
    let folder = Folder::new();
    let image = folder.file("image");
    let (shape, size) = (shape_option(case.geometry), case.image_size.to_string());
    let mut options = vec!["create", "-q", "-f", "qed", "-u", "-o", &shape];
    if let Some((name, format)) = case.backing {
        options.extend(["-b", name, "-F", format]);
    }
    let paths = [image.clone()];
    let answer = qemu_img(words(&options, &paths).chain([OsStr::new(&size)]));
    match answer.code {
        Some(0) => Some(bytes(&image)),
        Some(1) => None,
        other => panic!("qemu-img ended with {other:?}"),
    }
}

fn by_us(case: &Case<'_>) -> Result<Vec<u8>, CreateError> {
    let storage = MemoryStorage::default();
    let backing = case.backing.map(|(name, format)| CreateBacking {
        name: name.as_bytes().to_vec(),
        format: match format {
            "raw" => BackingFormat::Raw,
            _ => BackingFormat::Unstated,
        },
    });
    create(
        &storage,
        &CreateOptions {
            geometry: case.geometry,
            image_size: case.image_size,
            backing,
            layout: Layout::Classic,
        },
    )?;
    Ok(storage.to_vec())
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
