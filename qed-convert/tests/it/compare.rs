//! Comparing and measuring disks, also against what qemu-img says about the same files.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::Arc;

use qed_convert::NoProgress;
use qed_convert::compare::{CompareOptions, Comparison, compare};
use qed_convert::measure::{Measure, MeasureTarget, measure, measure_size};
use qed_convert::qcow2::Qcow2CreateOptions;
use qed_core::{GuestExtentKind, Layout};
use qed_spec::Geometry;

use crate::lab::{ModelDisk, Random, open_by_name};
use crate::qcow2_lab::Lab;

fn options(threads: usize, strict: bool) -> CompareOptions {
    CompareOptions { threads: NonZeroUsize::new(threads).expect("not zero"), strict }
}

#[test]
fn the_lowest_difference_is_found_by_any_number_of_threads() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let size = (1 + random.below(4000)) * 512;
        let first = ModelDisk::random(&mut random, size, None);
        // The same bytes under another mapping.
        let mut second = ModelDisk::of_data(first.bytes.clone());
        let same = compare(&first, &second, &options(3, false), &NoProgress).unwrap();
        assert_eq!(same, Comparison::Identical, "seed {seed}");
        let mut changes: Vec<u64> = (0..1 + random.below(5)).map(|_| random.below(size)).collect();
        changes.sort_unstable();
        for at in &changes {
            second.bytes[usize::try_from(*at).unwrap()] ^= 0x40;
        }
        changes.retain(|at| {
            first.bytes[usize::try_from(*at).unwrap()]
                != second.bytes[usize::try_from(*at).unwrap()]
        });
        for threads in 1..=8 {
            let want = changes.first().map_or(Comparison::Identical, |at| {
                Comparison::ContentDiffers { offset: at - at % 512 }
            });
            let found = compare(&first, &second, &options(threads, false), &NoProgress).unwrap();
            assert_eq!(found, want, "seed {seed}, {threads} threads");
            let found = compare(&second, &first, &options(threads, false), &NoProgress).unwrap();
            assert_eq!(found, want, "seed {seed}, {threads} threads, exchanged");
        }
    }
}

#[test]
fn strict_comparison_also_asks_for_sizes_and_mapping() {
    let zeros = |kind, len| {
        let mut disk = ModelDisk::of_data(vec![1; 4096]);
        disk.push(vec![0; len], kind, 0);
        disk
    };
    let zero = zeros(GuestExtentKind::Zero, 8192);
    let hole = zeros(GuestExtentKind::Unallocated, 8192);
    let long = zeros(GuestExtentKind::Zero, 16384);
    let found =
        |first, second, strict| compare(first, second, &options(2, strict), &NoProgress).unwrap();
    assert_eq!(found(&zero, &hole, false), Comparison::Identical);
    assert_eq!(found(&zero, &hole, true), Comparison::MappingDiffers { offset: 4096 });
    assert_eq!(found(&zero, &zero, true), Comparison::Identical);
    assert_eq!(found(&zero, &long, false), Comparison::Identical);
    assert_eq!(found(&zero, &long, true), Comparison::SizesDiffer);
}

#[test]
fn qemu_img_finds_the_same_differences() {
    let lab = Lab::new();
    lab.run(
        "convert -O qed source.raw same.qed
         convert -O qcow2 source.raw same.qcow2
         convert -O qcow2 source.raw other.qcow2
         io other.qcow2 write -P 0x77 1500k 512; write -P 0x77 9k 1k",
    );
    let mut longer = fs::read(lab.path("source.raw")).unwrap();
    longer.resize(4 << 20, 0);
    fs::write(lab.path("longer.raw"), &longer).unwrap();
    longer[(4 << 20) - 700] = 1;
    fs::write(lab.path("tail.raw"), &longer).unwrap();
    let names = ["source.raw", "same.qed", "same.qcow2", "other.qcow2", "longer.raw", "tail.raw"];
    for (first, second) in names.iter().flat_map(|first| names.map(|second| (*first, second))) {
        for strict in [false, true] {
            let flag: &[&str] = if strict { &["compare", "-s"] } else { &["compare"] };
            let output = lab.tool("qemu-img", flag.iter().copied().chain([first, second]));
            let text = String::from_utf8(output.stdout).unwrap();
            let (a, b) = (open_by_name(&lab, first), open_by_name(&lab, second));
            let ours = match compare(&*a, &*b, &options(2, strict), &NoProgress).unwrap() {
                Comparison::Identical => "Images are identical.".to_owned(),
                Comparison::SizesDiffer => "Strict mode: Image size mismatch!".to_owned(),
                Comparison::ContentDiffers { offset } => {
                    format!("Content mismatch at offset {offset}!")
                }
                Comparison::MappingDiffers { offset } => {
                    format!("Strict mode: Offset {offset} block status mismatch!")
                }
            };
            // In strict mode QEMU also compares where its drivers cut their runs.
            let extension = |name: &'static str| name.rsplit('.').next();
            if strict && extension(first) != extension(second) {
                continue;
            }
            assert_eq!(text.lines().last(), Some(&*ours), "{first} {second} strict {strict}");
        }
    }
}

#[test]
fn qcow2_and_raw_measure_as_qemu_measures() {
    let lab = Lab::new();
    lab.run("convert -O qcow2 source.raw source.qcow2");
    let qemu = |args: &str| {
        let output = lab.tool("qemu-img", args.split_whitespace());
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect(args);
        Measure {
            required: json["required"].as_u64().unwrap(),
            fully_allocated: json["fully-allocated"].as_u64().unwrap(),
        }
    };
    for cluster_len in [512, 4096, 65536, 2 << 20] {
        for refcount_bits in [1, 16, 64] {
            let target = MeasureTarget::Qcow2(Qcow2CreateOptions {
                cluster_len,
                refcount_bits,
                ..Qcow2CreateOptions::new(0)
            });
            let how = format!("-o cluster_size={cluster_len},refcount_bits={refcount_bits}");
            let theirs = qemu(&format!("measure --output=json -O qcow2 {how} source.qcow2"));
            assert_eq!(
                measure(&*open_by_name(&lab, "source.qcow2"), &target).unwrap(),
                theirs,
                "{how}"
            );
            for size in [0, 512, 1 << 20, (5 << 30) + 512] {
                let theirs = qemu(&format!("measure --output=json -O qcow2 {how} --size {size}"));
                assert_eq!(measure_size(size, &target).unwrap(), theirs, "{how} {size}");
            }
        }
    }
    let theirs = qemu("measure --output=json -O raw source.qcow2");
    assert_eq!(measure(&*open_by_name(&lab, "source.qcow2"), &MeasureTarget::Raw).unwrap(), theirs);
}

#[test]
fn qed_measures_as_convert_writes() {
    use qed_convert::{ConvertOptions, Target, convert};
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let size = (1 + random.below(20_000)) * 512;
        let mut source = ModelDisk::random(&mut random, size, None);
        source.bytes.fill(1);
        let geometry =
            Geometry::new(1 << random.pick(&[12, 13, 16]), random.pick(&[1, 2])).unwrap();
        let expected =
            measure(&source, &MeasureTarget::Qed { geometry, layout: Layout::Classic }).unwrap();
        for (sparse_len, want) in [(4096, expected.required), (0, expected.fully_allocated)] {
            let storage = Arc::new(qed_io::MemoryStorage::default());
            let target = Target::Qed {
                storage: storage.clone(),
                geometry,
                layout: Layout::Classic,
                backing: None,
            };
            let options = ConvertOptions { sparse_len, ..ConvertOptions::default() };
            convert(&source, target, &options, &NoProgress).unwrap();
            assert_eq!(storage.to_vec().len() as u64, want, "seed {seed}, -S {sparse_len}");
        }
    }
}
