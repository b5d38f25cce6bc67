//! What `convert` writes, judged by the installed qemu-img.

use std::fs;
use std::sync::Arc;

use qed_convert::qcow2::{Qcow2Compression, Qcow2CreateOptions, Qcow2Version, create_qcow2};
use qed_convert::{NewBacking, NoProgress, Target, convert};
use qed_core::Layout;
use qed_io::{Existing, FileStorage, ImageLock, NewFileOptions, Storage};
use qed_spec::Geometry;

use crate::lab::{open_by_name, options};
use crate::qcow2_lab::Lab;

fn new_file(lab: &Lab, name: &str) -> Arc<dyn Storage> {
    let how =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    Arc::new(FileStorage::create(lab.path(name), how).expect("a working storage"))
}

fn qed(cluster: u32, table: u32) -> impl Fn(Arc<dyn Storage>) -> Target<'static> {
    move |storage| {
        let geometry = Geometry::new(cluster, table).expect("a legal shape");
        Target::Qed { storage, geometry, layout: Layout::Classic, backing: None }
    }
}

fn qcow2(
    options: Qcow2CreateOptions,
    compress: bool,
) -> impl Fn(Arc<dyn Storage>) -> Target<'static> {
    move |storage| Target::Qcow2 { storage, options: options.clone(), compress }
}

/// Converts `source` to `name` and lets qemu-img check it and compare it with `source.raw`.
#[track_caller]
fn convert_and_judge(
    lab: &Lab,
    source: &str,
    name: &str,
    target: impl Fn(Arc<dyn Storage>) -> Target<'static>,
) {
    let disk = open_by_name(lab, source);
    convert(&*disk, target(new_file(lab, name)), &options(3), &NoProgress)
        .expect("a working storage");
    judge(lab, name);
}

#[track_caller]
fn judge(lab: &Lab, name: &str) {
    let format = name.rsplit('.').next().expect("a name with a dot");
    if format != "raw" {
        // Leaks and corruptions both fail.
        lab.run(&format!("check -f {format} {name}"));
    }
    lab.run(&format!("compare -f raw -F {format} source.raw {name}"));
}

#[test]
fn every_pair_of_formats() {
    let lab = Lab::new();
    lab.run(
        "convert -O qed source.raw in.qed
         convert -O qcow2 source.raw plain.qcow2
         convert -O qcow2 -c source.raw zlib.qcow2
         convert -O qcow2 -c -o compression_type=zstd source.raw zstd.qcow2
         convert -O qcow2 -o extended_l2=on,cluster_size=128k source.raw extended.qcow2
         convert -O qcow2 -o compat=0.10 source.raw old.qcow2",
    );
    let sources = [
        "source.raw",
        "in.qed",
        "plain.qcow2",
        "zlib.qcow2",
        "zstd.qcow2",
        "extended.qcow2",
        "old.qcow2",
    ];
    for source in sources {
        convert_and_judge(&lab, source, "out.raw", Target::Raw);
        convert_and_judge(&lab, source, "out.qed", qed(65536, 4));
        convert_and_judge(&lab, source, "out.qcow2", qcow2(Qcow2CreateOptions::new(0), false));
        convert_and_judge(&lab, source, "outc.qcow2", qcow2(Qcow2CreateOptions::new(0), true));
    }
}

#[test]
fn qed_of_every_shape_that_qemu_opens() {
    let lab = Lab::new();
    for cluster_bits in 12..=21 {
        for table in [1, 2, 4, 8, 16] {
            let geometry = Geometry::new(1 << cluster_bits, table).unwrap();
            // QEMU reports false leaks for large tables of small clusters.
            if geometry.opens_in_qemu() && (table <= 4 || cluster_bits >= 16) {
                convert_and_judge(&lab, "source.raw", "out.qed", qed(1 << cluster_bits, table));
            }
        }
    }
}

#[test]
fn qcow2_of_every_cluster_size_codec_and_refcount_width() {
    let lab = Lab::new();
    for cluster_bits in 9..=21 {
        let options =
            Qcow2CreateOptions { cluster_len: 1 << cluster_bits, ..Qcow2CreateOptions::new(0) };
        for compression in [Qcow2Compression::Zlib, Qcow2Compression::Zstd] {
            let options = Qcow2CreateOptions { compression, ..options.clone() };
            convert_and_judge(&lab, "source.raw", "out.qcow2", qcow2(options.clone(), true));
        }
        convert_and_judge(&lab, "source.raw", "out.qcow2", qcow2(options.clone(), false));
        let options = Qcow2CreateOptions { version: Qcow2Version::V2, ..options };
        convert_and_judge(&lab, "source.raw", "out.qcow2", qcow2(options, true));
    }
    for refcount_bits in [1, 2, 4, 8, 16, 32, 64] {
        for compress in [false, true] {
            let options = Qcow2CreateOptions {
                cluster_len: 4096,
                refcount_bits,
                lazy_refcounts: true,
                ..Qcow2CreateOptions::new(0)
            };
            convert_and_judge(&lab, "source.raw", "out.qcow2", qcow2(options, compress));
        }
    }
}

#[test]
fn overlays_keep_to_what_their_backing_file_lacks() {
    let lab = Lab::new();
    // The overlay has zeros over data, data over zeros, and ends past its backing file.
    lab.run(
        "convert -O raw source.raw base.raw
         create -f qcow2 -b base.raw -F raw top.qcow2 4M
         io top.qcow2 write -P 7 1M 70000; write -z 0 300k; write -P 9 3500k 512; write -z 3M 64k
         convert -O raw top.qcow2 flat.raw",
    );
    let top = lab.open("top.qcow2");
    let backing =
        NewBacking { name: b"base.raw".to_vec(), format: Some("raw".into()), len: 3 << 20 };
    for cluster in [4096, 65536, 1 << 20] {
        let geometry = Geometry::new(cluster, 2).unwrap();
        let mut targets: Vec<(&str, Target<'_>)> = vec![(
            "out.qed",
            Target::Qed {
                storage: new_file(&lab, "out.qed"),
                geometry,
                layout: Layout::Classic,
                backing: Some(backing.clone()),
            },
        )];
        for (name, version, compress) in [
            ("two.qcow2", Qcow2Version::V2, false),
            ("out.qcow2", Qcow2Version::V3, false),
            ("outc.qcow2", Qcow2Version::V3, true),
        ] {
            let options = Qcow2CreateOptions {
                version,
                cluster_len: cluster,
                backing: Some(backing.clone()),
                ..Qcow2CreateOptions::new(0)
            };
            targets
                .push((name, Target::Qcow2 { storage: new_file(&lab, name), options, compress }));
        }
        for (name, target) in targets {
            let summary = convert(&top, target, &options(2), &NoProgress).unwrap();
            // The overlay has three clusters of 64 KiB with data.
            let most = 3 * u64::from(cluster.max(65536));
            assert!((0x1000..=most).contains(&summary.data_len), "{name}: {summary:?}");
            let format = name.rsplit('.').next().unwrap();
            lab.run(&format!(
                "check -f {format} {name}
                 compare -f raw -F {format} flat.raw {name}"
            ));
        }
    }
}

#[test]
fn a_created_qcow2_tells_qemu_what_qemu_would_have_said() {
    let lab = Lab::new();
    fs::write(lab.path("base.raw"), [0; 4096]).unwrap();
    let backing =
        || Some(NewBacking { name: b"base.raw".to_vec(), format: Some("raw".into()), len: 4096 });
    let plain = Qcow2CreateOptions::new(1 << 30);
    let cases = [
        ("cluster_size=65536", plain.clone()),
        ("compat=0.10", Qcow2CreateOptions { version: Qcow2Version::V2, ..plain.clone() }),
        ("lazy_refcounts=on", Qcow2CreateOptions { lazy_refcounts: true, ..plain.clone() }),
        ("refcount_bits=1", Qcow2CreateOptions { refcount_bits: 1, ..plain.clone() }),
        (
            "compression_type=zstd,cluster_size=2M",
            Qcow2CreateOptions {
                compression: Qcow2Compression::Zstd,
                cluster_len: 2 << 20,
                ..plain.clone()
            },
        ),
        (
            "cluster_size=512,backing_file=base.raw,backing_fmt=raw",
            Qcow2CreateOptions { cluster_len: 512, backing: backing(), ..plain.clone() },
        ),
        (
            "backing_file=base.raw,backing_fmt=raw",
            Qcow2CreateOptions { backing: backing(), ..plain.clone() },
        ),
        ("cluster_size=4096", Qcow2CreateOptions { size: 0, cluster_len: 4096, ..plain }),
    ];
    for (text, options) in cases {
        let info = |name: &str| {
            let output = lab.tool("qemu-img", ["info", "--output=json", name]);
            let mut info: serde_json::Value = serde_json::from_slice(&output.stdout).expect(name);
            for key in ["filename", "actual-size", "children", "format-specific"] {
                let details = info["format-specific"]["data"].clone();
                info.as_object_mut().unwrap().remove(key);
                if key == "format-specific" {
                    info["details"] = details;
                }
            }
            info
        };
        create_qcow2(new_file(&lab, "ours.qcow2"), &options).expect(text);
        lab.run(&format!(
            "create -f qcow2 -o {text} theirs.qcow2 {}
             check ours.qcow2",
            options.size
        ));
        assert_eq!(info("ours.qcow2"), info("theirs.qcow2"), "{text}");
        if options.size == 0 {
            // QEMU leaves out the extensions of an image that it never grows.
            continue;
        }
        // All but the places of the tables, from the version 3 fields on, is the same.
        let front = |name| fs::read(lab.path(name)).unwrap()[72..512].to_vec();
        assert_eq!(front("ours.qcow2"), front("theirs.qcow2"), "{text}");
        lab.run("io ours.qcow2 write -P 5 0 0");
    }
}
