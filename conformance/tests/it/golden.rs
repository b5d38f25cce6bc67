//! The images that QEMU made, kept in `golden`: each file is what its digest says, each disk reads
//! as QEMU read it, and what `qed` says of each image is kept as a snapshot.
//!
//! `cargo xtask golden` makes them; that QEMU still makes the same is a test of xtask.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use qed_fuzz::{Answer, qemu_img};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::QED;
use crate::support::{Folder, words};

/// What is asked of every image, each in both forms of output.
const QUESTIONS: [&str; 4] = ["info", "check", "map", "dump"];
/// What is asked besides where the files below are kept.
const CHAIN_QUESTIONS: [&str; 1] = ["info --backing-chain"];

/// What an image is amended to, one after the other.
const LAYOUTS: [&str; 3] = ["journal=64k", "classic=off,journal=off", "classic=on"];

#[derive(Deserialize)]
struct Manifest {
    image: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    name: String,
    /// The digest of the virtual disk as QEMU reads it.
    content: Option<String>,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    name: String,
    len: u64,
    sha256: String,
}

#[test]
fn every_kept_file_has_its_digest_and_none_is_left_over() {
    let mut named = BTreeSet::from(["manifest.toml".to_owned()]);
    for image in images() {
        for file in &image.files {
            let bytes = kept(&image, file);
            assert_eq!(bytes.len() as u64, file.len, "{} {}", image.name, file.name);
            assert_eq!(digest(&bytes), file.sha256, "{} {}", image.name, file.name);
            named.insert(kept_name(&image, file));
        }
    }
    assert_same(&names_in(&golden()), &named);
}

#[test]
fn disks_read_as_qemu_read_them() {
    let mut read = 0;
    for image in images() {
        let Some(content) = &image.content else { continue };
        let folder = unpack(&image);
        qed(&format!("convert {} -O raw image.qed disk", formats(&image)), &folder).success();
        let disk = std::fs::read(folder.file("disk")).unwrap();
        assert_eq!(digest(&disk), *content, "{}", image.name);
        read += 1;
    }
    assert!(read > 100, "{read} disks were read");
}

#[test]
fn disks_read_the_same_in_every_layout() {
    let mut amended = 0;
    for image in images() {
        let Some(content) = &image.content else { continue };
        let folder = unpack(&image);
        let check = || qed("check -f qed image.qed", &folder).code;
        let paths = [folder.file("image.qed")];
        let check_by_qemu = || qemu_img(words(&["check", "-q", "-f", "qed"], &paths)).code;
        // QEMU left clusters behind in some, and two entries for one cluster in others.
        let (before, before_by_qemu) = (check(), check_by_qemu());
        for option in LAYOUTS {
            let case = format!("{} {option}", image.name);
            qed(&format!("amend -f qed -o {option} image.qed"), &folder).success();
            let after = check();
            assert!(after == before || after == Some(0), "{case}: {after:?}");
            qed(&format!("convert {} -O raw image.qed disk", formats(&image)), &folder).success();
            assert_eq!(digest(&std::fs::read(folder.file("disk")).unwrap()), *content, "{case}");
            let by_qemu = check_by_qemu();
            let is_no_worse = by_qemu == before_by_qemu || matches!(by_qemu, Some(0 | 3));
            assert!(is_no_worse, "{case}: QEMU {by_qemu:?}");
        }
        amended += 1;
    }
    assert!(amended > 100, "{amended} images were amended");
}

#[test]
fn what_qed_says_of_each_image() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut named = BTreeSet::new();
    for image in images() {
        let said = said_of(&image);
        settings.bind(|| insta::assert_snapshot!(image.name.as_str(), said));
        named.insert(format!("{}.snap", image.name));
    }
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots");
    // A run that failed leaves what it found beside them, under another extension.
    let kept = names_in(&snapshots).into_iter().filter(|name| name.ends_with(".snap")).collect();
    assert_same(&kept, &named);
}

/// All that the program answers, call by call.
fn said_of(image: &Image) -> String {
    let folder = unpack(image);
    let mut questions: Vec<String> = QUESTIONS.map(|what| format!("{what} -f qed")).into();
    if image.files.len() > 1 {
        questions.extend(CHAIN_QUESTIONS.map(|what| format!("{what} {}", formats(image))));
    }
    let forms = ["human", "json"];
    let lines = questions
        .iter()
        .flat_map(|question| forms.map(|form| format!("{question} --output={form} image.qed")));
    lines.map(|line| transcript(&line, &folder)).collect()
}

/// The formats of an image and of what lies below it, where no image says that it is raw.
fn formats(image: &Image) -> &'static str {
    let mut below = image.files.iter().filter(|file| file.name != "image.qed");
    match below.any(|file| file.name.ends_with(".qed")) {
        true => "-f qed --backing-format qed",
        false => "-f qed",
    }
}

/// A call, what it printed, its errors behind `!`, and its exit code if that is not 0.
fn transcript(line: &str, folder: &Folder) -> String {
    let answer = qed(line, folder);
    let stdout = match serde_json::from_str(&answer.stdout) {
        Ok(json) => format!("{}\n", without_allocation(json)),
        Err(_) => answer.stdout.lines().filter(|line| !is_allocation(line)).map(ended).collect(),
    };
    let stderr: String = answer.stderr.lines().map(|line| format!("! {line}\n")).collect();
    let code = answer.code.unwrap();
    let code = if code == 0 { String::new() } else { format!("exit code {code}\n") };
    format!("$ qed {line}\n{stdout}{stderr}{code}\n")
}

fn ended(line: &str) -> String {
    format!("{line}\n")
}

/// Whether a line of `info` depends on the file system that the image lies on.
fn is_allocation(line: &str) -> bool {
    line.trim_start().starts_with("disk size: ")
}

/// JSON on one line, so that a snapshot stays small, without what depends on the file system.
fn without_allocation(mut json: Value) -> Value {
    match &mut json {
        Value::Object(fields) => {
            fields.shift_remove("actual-size");
            fields.values_mut().for_each(|value| *value = without_allocation(value.take()));
        }
        Value::Array(values) => {
            values.iter_mut().for_each(|value| *value = without_allocation(value.take()));
        }
        _ => {}
    }
    json
}

fn images() -> Vec<Image> {
    let manifest = std::fs::read_to_string(golden().join("manifest.toml")).unwrap();
    toml::from_str::<Manifest>(&manifest).unwrap().image
}

/// The files of an image in a folder of their own.
fn unpack(image: &Image) -> Folder {
    let folder = Folder::new();
    for file in &image.files {
        std::fs::write(folder.file(&file.name), kept(image, file)).unwrap();
    }
    folder
}

fn kept(image: &Image, file: &File) -> Vec<u8> {
    let name = kept_name(image, file);
    let packed =
        std::fs::read(golden().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    zstd::decode_all(&packed[..]).unwrap()
}

fn kept_name(image: &Image, file: &File) -> String {
    format!("{}.{}.zst", image.name, file.name)
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
fn assert_same(found: &BTreeSet<String>, expected: &BTreeSet<String>) {
    let differing: Vec<&String> = found.symmetric_difference(expected).collect();
    assert!(differing.is_empty(), "missing, or left over: {differing:?}");
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn qed(line: &str, folder: &Folder) -> Answer {
    let mut command = Command::new(QED.as_path());
    let output = command.args(line.split(' ')).current_dir(folder.path()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
