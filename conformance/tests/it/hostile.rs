//! Hostile images: each case of `hostile.toml` is built here, and the program answers it in a
//! second of processor time and 64 MiB, with a clear error, and changes nothing.
//!
//! Whatever a guest writes through an image that opens is the matter of `guest_writes`, and what a
//! client of a server sends that of `nbd`.

mod backing;
mod chain;
mod guest_writes;
mod header;
mod image;
mod nbd;
mod program;
mod qcow2;
mod raw;
mod size;
mod tables;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use qed_fuzz::Answer as Told;
use serde::Deserialize;

use crate::support::Folder;
use program::Ran;

/// One hostile image, or several that differ in one value.
struct Case {
    /// As in the list, where it is also said what is hostile.
    name: &'static str,
    /// Format of the images.
    format: &'static str,
    /// Makes the images in a folder, and whatever else they need there.
    build: Build,
    /// What the program has to answer for each of them.
    answers: &'static [Answer],
}

/// Makes images in a folder.
type Build = fn(&Folder) -> Vec<PathBuf>;

impl Case {
    const fn qed(name: &'static str, build: Build, answers: &'static [Answer]) -> Self {
        Self { name, format: "qed", build, answers }
    }

    const fn raw(name: &'static str, build: Build, answers: &'static [Answer]) -> Self {
        Self { name, format: "raw", build, answers }
    }

    const fn qcow2(name: &'static str, build: Build, answers: &'static [Answer]) -> Self {
        Self { name, format: "qcow2", build, answers }
    }
}

/// A command line with `IMAGE` for the image, its exit code, and a text that its output has.
type Answer = (&'static str, i32, &'static str);

/// What everybody does with an image; asked for every case besides its own answers.
const USUAL: [&str; 7] = [
    "info -f FORMAT IMAGE",
    "info -f FORMAT --backing-chain IMAGE",
    "info -f FORMAT --output=json IMAGE",
    "check -f FORMAT IMAGE",
    "map -f FORMAT IMAGE",
    "dump IMAGE",
    "convert -f FORMAT -O raw IMAGE out",
];

const AREAS: [&[Case]; 7] = [
    header::CASES,
    size::CASES,
    tables::CASES,
    backing::CASES,
    chain::CASES,
    raw::CASES,
    qcow2::CASES,
];

#[test]
fn headers() {
    assert_harmless(header::CASES);
}

#[test]
fn sizes() {
    assert_harmless(size::CASES);
}

#[test]
fn tables_of_any_kind() {
    assert_harmless(tables::CASES);
}

#[test]
fn backing_file_names() {
    assert_harmless(backing::CASES);
}

#[test]
fn chains() {
    assert_harmless(chain::CASES);
}

#[test]
fn raw_disks() {
    assert_harmless(raw::CASES);
}

#[test]
fn qcow2_images() {
    assert_harmless(qcow2::CASES);
}

#[test]
fn every_case_of_the_list_is_built_here_and_no_other() {
    #[derive(Deserialize)]
    struct List {
        case: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        name: String,
    }
    let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/hostile.toml"));
    let list: List = toml::from_str(&list.unwrap()).unwrap();
    let listed: Vec<&str> = list.case.iter().map(|case| case.name.as_str()).collect();
    let images = AREAS.iter().flat_map(|area| area.iter().map(|case| case.name));
    let built: Vec<&str> = images.chain(nbd::cases().map(|case| case.name)).collect();
    assert_eq!(listed, built);
}

/// Builds the images of each case, runs the program on them and looks at what it left behind.
#[track_caller]
fn assert_harmless(cases: &[Case]) {
    let problems: Vec<String> = cases.iter().flat_map(problems_of).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn problems_of(case: &Case) -> Vec<String> {
    let folder = Folder::new();
    let images = (case.build)(&folder);
    assert!(!images.is_empty(), "{} builds no image", case.name);
    let before = traces(folder.path());
    let mut problems = Vec::new();
    for image in &images {
        let mut run = |line| {
            let ran = program::run(line, case.format, image, folder.path());
            problems.extend(rude(&ran).map(|why| told(&why, case, image, &ran)));
            // Its absence is fine: a conversion that fails removes what it made.
            let _ = std::fs::remove_file(folder.file("out"));
            ran
        };
        USUAL.iter().for_each(|line| drop(run(line)));
        let answers: Vec<Ran> = case.answers.iter().map(|(line, ..)| run(line)).collect();
        for ((_, code, says), ran) in case.answers.iter().zip(answers) {
            let Told { stdout, stderr, .. } = &ran.told;
            let is_right =
                ran.told.code == Some(*code) && (stdout.contains(says) || stderr.contains(says));
            let why = format!("not {code} with '{says}'");
            problems.extend((!is_right).then(|| told(&why, case, image, &ran)));
        }
    }
    if traces(folder.path()) != before {
        problems.push(format!("{}: a file was changed, which nothing asked for", case.name));
    }
    problems
}

/// What no answer may be: no end, a panic, a failure without a reason, a command to the terminal.
fn rude(ran: &Ran) -> Option<String> {
    let Told { code, stdout, stderr } = &ran.told;
    if stdout.chars().chain(stderr.chars()).any(|char| char.is_control() && char != '\n') {
        return Some("control characters".to_owned());
    }
    let reported = ran.line.starts_with("check") && matches!(code, Some(2 | 3));
    match code {
        Some(0..=3 | 63) if stderr.contains("panicked") => Some("a panic".to_owned()),
        Some(0) => None,
        Some(1..=3 | 63) if reported || stderr.starts_with("qed: ") => None,
        Some(1..=3 | 63) => Some("no error text".to_owned()),
        other => Some(format!("over its limits, or ended by a signal: {other:?}")),
    }
}

/// A problem with a call, and all that the program said.
fn told(why: &str, case: &Case, image: &Path, ran: &Ran) -> String {
    let Told { code, stdout, stderr } = &ran.told;
    let (name, line, image) = (case.name, &ran.line, image.display());
    format!("{name}: {line}, {image}: {why}\n  ended with {code:?}\n{stdout}{stderr}")
}

/// Name, length and time of the last change of every file of a folder.
fn traces(folder: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let trace = |path: PathBuf| {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        (path, (metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
    };
    entries.map(trace).collect()
}
