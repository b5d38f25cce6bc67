//! The inputs that are kept: seeds, corpora, and everything that fuzzing ever found.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use qed_fuzz::{Branches, TARGETS, Target};

/// What the seeds of a target must reach: what the code under test decides by.
const BRANCHES: [(&str, &str); 15] = [
    (
        "header",
        "header-ok header-err-truncated header-err-magic header-err-unsupported-feature
         header-err-cluster-size header-err-table-size header-err-header-size
         header-err-l1-table-offset header-err-image-size-unaligned
         header-err-image-size-too-large header-err-backing-name-empty
         header-err-backing-name-too-long header-err-backing-name-outside-header-area
         name-ok-false name-ok-true name-err-nul name-err-need-more",
    ),
    (
        "superblock",
        "superblock-ok superblock-err-truncated superblock-err-magic superblock-err-checksum
         superblock-err-version superblock-err-generation superblock-err-sections-length
         superblock-err-section-truncated superblock-err-section-order superblock-err-padding
         choice-ok-none choice-ok-some-a choice-ok-some-b choice-err-conflict choice-err-version
         anchor-ok-false anchor-ok-true anchor-err-truncated anchor-err-magic
         anchor-err-checksum anchor-err-version anchor-err-padding
         anchor-err-backing-format-length anchor-err-backing-format-byte
         format-ok-none format-ok-some format-err-backing-format",
    ),
    (
        "image",
        "open-ok open-err-needs-recovery open-err-image-corrupt-l1-entry open-err-mode-unknown
         kept-classic kept-compat-none kept-compat-some kept-unknown",
    ),
    (
        "map",
        "backing-none backing-some map-data map-zero map-corrupt table-ok table-err
         dirty-map-data dirty-map-zero dirty-map-corrupt dirty-table-ok dirty-table-err",
    ),
    ("repair", "recover-ok recover-err-corrupt"),
    ("writes", "open-ok open-err-image-corrupt-l1-entry operation-ok operation-err"),
    ("operations", "ending-closed ending-let-go ending-killed"),
    (
        "pending",
        "opened-ok opened-err-pending-lost-no-entry opened-err-pending-lost-value
         opened-err-pending-lost-foreign",
    ),
    (
        "journal",
        "shown-ok-none shown-ok-some shown-err-header-unsupported-feature shown-err-mode-unknown
         shown-err-superblock-conflict shown-err-journal-ring-place
         shown-err-journal-ring-sequence shown-err-journal-cuts-tables
         fault-lost fault-misplaced fault-chain fault-newer fault-commit-too-long
         fault-physical-size fault-refused fault-block-version fault-block-index
         fault-block-stable fault-block-used fault-block-padding fault-block-generation
         fault-record-kind fault-record-count fault-record-place fault-record-value
         fault-record-unused commits-none commits-some-true commits-some-false
         interrupted-ok interrupted-err-image-io interrupted-err-journal-fatal
         interrupted-err-journal-recovery-io operation-ok",
    ),
    (
        "qcow2",
        "open-ok open-err-format-magic open-err-format-version open-err-format-too-short
         open-err-format-cluster-bits open-err-format-header-length open-err-format-image-size
         open-err-format-refcount-order open-err-format-unsupported-feature
         open-err-format-external-data-file open-err-format-encrypted
         open-err-format-compression-bit open-err-format-compression-type
         open-err-format-extension-length open-err-format-extension-too-long
         open-err-format-backing-name-place open-err-format-table-missing
         open-err-format-table-unaligned open-err-format-table-past-end
         open-err-format-table-too-large open-err-format-l1-too-small
         open-err-format-snapshot-entry bitmaps-ok bitmaps-err-format-bitmap-entry
         standard-ok-unallocated standard-ok-zero standard-ok-data standard-ok-compressed
         standard-err-table standard-err-reserved standard-err-unaligned standard-err-past-end
         extended-ok-unallocated extended-ok-zero extended-ok-data extended-ok-compressed
         extended-err-table extended-err-reserved extended-err-past-end extended-err-bitmap
         stream-ok stream-invalid stream-too-long stream-too-short",
    ),
    ("convert", "to-raw to-raw-image to-stream to-qed to-qed-image to-qcow2"),
    (
        "chain",
        "chain-ok chain-err-open chain-err-not-in-format chain-err-protocol
         chain-err-format-unstated chain-err-format-unknown chain-err-loop
         chain-err-resolve chain-err-outside-folder",
    ),
    (
        "nbd",
        "form-simple form-structured form-extended option-abort option-list option-start-tls
         option-structured option-extended option-info option-meta-context option-undefined
         option-overlong read-ok read-err write-ok write-err disconnect-ok flush-ok flush-err
         trim-ok trim-err cache-ok cache-err zeroes-ok zeroes-err status-ok status-err
         undefined-err end-ok end-err-invalid-data end-err-unexpected-eof",
    ),
    (
        "virtqueue",
        "step-nothing step-served step-broken status-ok status-io-error status-unsupported
         interrupt-true interrupt-false log-uncovered",
    ),
    ("qemu", "qemu-sound qemu-failed qemu-corrupt qemu-leaks convert-sound convert-failed"),
];

#[test]
fn each_seed_goes_through_the_branch_that_it_is_named_for() {
    for (target, path) in files("seeds") {
        let mut branches = Branches::seen();
        target.run(&fs::read(&path).unwrap(), &mut branches);
        let name = path.file_name().unwrap().to_str().unwrap();
        let gone = "go through other branches now: cargo xtask seeds makes them anew";
        assert!(branches.into_names().contains(name), "{} {gone}", path.display());
    }
}

#[test]
fn there_are_seeds_for_the_branches_of_the_readers() {
    for (target, branches) in BRANCHES {
        let names: BTreeSet<String> = names("seeds", target).collect();
        let missing = branches.split_whitespace().filter(|name| !is_reached(&names, name));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&str>::new(), "of {target}");
    }
    let all = qed_check::FindingKind::ALL;
    let mended = all.iter().filter(|kind| kind.can_repair()).count();
    for (target, area, expected) in [("image", "check", all.len()), ("repair", "repair", mended)] {
        let kinds = names("seeds", target).filter(|name| name.starts_with(area)).count();
        assert_eq!(kinds, expected, "findings of {target}");
    }
}

/// Whether a seed has the name, or one that says more.
fn is_reached(names: &BTreeSet<String>, branch: &str) -> bool {
    let more = format!("{branch}-");
    names.contains(branch) || names.iter().any(|name| name.starts_with(&more))
}

#[test]
fn what_fuzzing_found_stays_found() {
    for (target, path) in files("regressions") {
        assert!(passes(target, &fs::read(&path).unwrap()), "{}", path.display());
    }
}

#[test]
fn every_target_passes_its_corpus() {
    let failed: Vec<String> = thread::scope(|scope| {
        let targets = TARGETS.each_ref().map(|target| scope.spawn(|| failures(target)));
        targets.into_iter().flat_map(|failures| failures.join().unwrap()).collect()
    });
    assert_eq!(failed, Vec::<String>::new());
}

/// The lines of a target's corpus that do not pass.
fn failures(target: &Target) -> Vec<String> {
    let path = root().join("corpus").join(target.name).with_extension("hex");
    let text = fs::read_to_string(&path).expect("cargo xtask fuzz all --minimise makes corpora");
    assert!(!text.is_empty(), "{} has no input", path.display());
    let lines = (1..).zip(text.lines());
    let failed = lines.filter(|(_, line)| !passes(target, &bytes(line)));
    failed.map(|(number, line)| format!("{}:{number}: {line}", path.display())).collect()
}

/// Bytes from two digits each.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn passes(target: &Target, bytes: &[u8]) -> bool {
    let run = || target.run(bytes, &mut Branches::unseen());
    catch_unwind(AssertUnwindSafe(run)).is_ok()
}

/// The files that are kept for all targets in a folder, each in the folder of its target.
fn files(folder: &str) -> Vec<(&'static Target, PathBuf)> {
    let of_target = |target: &'static Target| {
        let path = |name: String| root().join(folder).join(target.name).join(name);
        names(folder, target.name).map(move |name| (target, path(name)))
    };
    TARGETS.iter().flat_map(of_target).collect()
}

fn names(folder: &str, target: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(root().join(folder).join(target)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
