//! What `info`, `dump`, `check` and `amend` say of marks, of a journal, and of what a crash left.

use std::path::Path;
use std::sync::Arc;

use qed_core::{Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext};
use qed_io::{FileOptions, FileStorage};
use qed_spec::GuestOffset;
use serde_json::Value;

use crate::dump::dump;
use crate::lab::Lab;

/// Writes into two L2 tables of the image, flushes this often, and leaves it open as a killed
/// program does.
fn write_and_die(image: &Path, flushes: u64) {
    let storage = FileStorage::open(image, FileOptions::READ_WRITE).expect("the image");
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Image::open(Arc::new(storage), &context).expect("it opens");
    for number in 0..flushes {
        for at in [0, 64 << 10, 3 << 30] {
            image.write_at(&[7; 4096], GuestOffset::new(at + (number << 20))).expect("written");
        }
        image.flush().expect("flushed");
    }
    std::mem::forget(image);
}

fn lab(options: &str) -> Lab {
    let lab = Lab::new();
    let options = format!("cluster_size=64k,table_size=4,{options}");
    lab.qed(["create", "-q", "-f", "qed", "-o", &options, "a.qed", "8G"]).succeeded();
    lab
}

fn json(lab: &Lab, command: &[&str]) -> Value {
    let ran = lab.qed(command.iter().chain(&["--output=json", "a.qed"]));
    serde_json::from_str(&ran.stdout).expect("JSON")
}

fn lines(lab: &Lab, command: &[&str]) -> Vec<String> {
    let ran = lab.qed(command.iter().chain(&["a.qed"]));
    ran.stdout.lines().map(|line| line.trim().to_owned()).collect()
}

#[track_caller]
fn has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|found| found == line), "{line:?} is not in {lines:#?}");
}

#[test]
fn marks_are_counted_and_shown() {
    let lab = lab("classic=off");
    let clean = lines(&lab, &["info"]);
    has(&clean, "consistency: compat");
    has(&clean, "tables marked dirty: 0");
    assert!(!clean.iter().any(|line| line.contains("cleanly")), "{clean:#?}");
    write_and_die(&lab.path("a.qed"), 1);
    let dirty = lines(&lab, &["info"]);
    has(&dirty, "cleanly shut down: no");
    has(&dirty, "tables marked dirty: 2");
    let data = json(&lab, &["info"])["format-specific"]["data"].clone();
    assert_eq!(data["consistency"], "compat");
    assert_eq!(data["marked-tables"], 2);
    assert_eq!(data["uuid"].as_str().expect("a uuid").len(), 36);

    let areas = dump(&lab, "a.qed");
    let areas = areas["areas"].as_array().expect("areas");
    let bitmap = areas.iter().find(|area| area["name"] == "dirty_bitmap").expect("the bitmap");
    let marks = &bitmap["fields"][0];
    assert_eq!((&marks["name"], &marks["value"]), (&"marks".into(), &0b11.into()), "{bitmap}");
    assert_eq!(marks["note"], "tables of L1 entries 0 1");
    let text = lines(&lab, &["dump"]);
    assert!(text.iter().any(|line| line.contains("marks = 0x3 (tables of L1 entries 0 1)")));
    assert!(text.iter().any(|line| line.contains("no_marks = all zero")));
}

#[test]
fn what_waits_in_a_journal_is_shown_checked_and_replayed() {
    let lab = lab("journal=64k");
    let clean = lines(&lab, &["info"]);
    has(&clean, "consistency: journal");
    has(&clean, "journal size: 64 KiB (65536 bytes)");
    assert!(!clean.iter().any(|line| line.contains("wait") || line.contains("cleanly")));
    assert_eq!(json(&lab, &["check"]).get("journal-commits"), None);

    write_and_die(&lab.path("a.qed"), 1);
    let dirty = lines(&lab, &["info"]);
    has(&dirty, "cleanly shut down: no");
    has(&dirty, "commits that wait in the journal: 1");
    let report = json(&lab, &["info"]);
    assert_eq!(report["dirty-flag"], true);
    let data = &report["format-specific"]["data"];
    assert_eq!((&data["journal-size"], &data["journal-commits"]), (&65536.into(), &1.into()));

    let checked = lines(&lab, &["check"]);
    has(&checked, "Commits that wait in the journal and count as written to the tables: 1");
    // What was reserved for more writes is free, and nothing is wrong.
    let checked = json(&lab, &["check"]);
    assert_eq!(lab.qed(["check", "a.qed"]).code, Some(0));
    assert!(checked["free-clusters"].as_u64() > Some(0), "{checked}");
    assert_eq!(checked["allocated-clusters"], 3);
    journal_is_dumped(&lab);

    let repaired = json(&lab, &["check", "-f", "qed", "-r", "all"]);
    assert_eq!(repaired["journal-commits-replayed"], 1);
    assert_eq!(json(&lab, &["check"]).get("journal-commits"), None);
    assert_eq!(json(&lab, &["info"])["dirty-flag"], false);
    dump(&lab, "a.qed");
}

/// One block with a record for each L1 entry and for each run of L2 entries, and the rest of the
/// ring empty.
fn journal_is_dumped(lab: &Lab) {
    let areas = dump(lab, "a.qed");
    let areas = areas["areas"].as_array().expect("areas");
    let ring = areas.iter().find(|area| area["name"] == "journal").expect("the ring");
    let fields = ring["fields"].as_array().expect("fields");
    let records = fields.iter().filter(|field| field["name"] == "record");
    let mut kinds: Vec<&str> = records
        .map(|field| field["note"].as_str().expect("a note").split(':').next().expect("a kind"))
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["L1_SET", "L1_SET", "L2_SET_RUN", "L2_SET_RUN"], "{ring}");
    let unused: Vec<_> = fields.iter().filter(|field| field["name"] == "unused").collect();
    let unused = unused.iter().map(|field| field["length"].as_u64().expect("a number"));
    assert_eq!(unused.sum::<u64>(), 60 << 10, "{ring}");
    let section = areas.iter().filter_map(|area| area["fields"].as_array()).flatten();
    let notes: Vec<_> = section.filter(|field| field["name"] == "JOURNAL").collect();
    let note = notes[0]["note"].as_str().expect("a note");
    assert!(note.contains("65536 bytes at 0x"), "{note}");
}

#[test]
fn a_journal_with_a_lost_block_is_told_and_left_alone() {
    let lab = lab("journal=64k");
    let path = lab.path("a.qed");
    // The second commit says that the first was durable.
    write_and_die(&path, 2);
    let mut bytes = std::fs::read(&path).expect("the image");
    let areas = dump(&lab, "a.qed");
    let areas = areas["areas"].as_array().expect("areas");
    let ring = areas.iter().find(|area| area["name"] == "journal").expect("the ring");
    let at = usize::try_from(ring["offset"].as_u64().expect("a number")).expect("small");
    // The blocks are numbered from 1, and each lies at its number.
    bytes[at + 4096 + 100] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let fields = dump(&lab, "a.qed");
    let areas = fields["areas"].as_array().expect("areas");
    let ring = areas.iter().find(|area| area["name"] == "journal").expect("the ring");
    assert_eq!(ring["fields"][1]["name"], "stale", "{ring}");
    let text = lines(&lab, &["info"]);
    let line = text.iter().find(|line| line.starts_with("journal cannot be replayed: "));
    assert!(line.is_some_and(|line| line.contains("block 1")), "{text:#?}");
    assert_eq!(lab.qed(["check", "a.qed"]).code, Some(1));
    assert_eq!(lab.qed(["check", "-f", "qed", "-r", "all", "a.qed"]).code, Some(1));
    assert!(std::fs::read(&path).expect("the image") == bytes);
}

#[test]
fn an_image_that_is_not_written_is_still_shown() {
    let lab = lab("classic=off");
    let path = lab.path("a.qed");
    let mut bytes = std::fs::read(&path).expect("the image");
    // A valid superblock of a mode that a later program may have.
    let at = bytes.windows(4).position(|bytes| bytes == b"QEDX").expect("a superblock");
    let current = qed_spec::Superblock::parse(&bytes[at..at + 4096]).expect("valid");
    let mut builder = qed_spec::SuperblockBuilder::from_superblock(&current);
    builder.set_section(qed_spec::SectionType::MODE, &9_u32.to_le_bytes()).expect("room");
    let later = builder.encode(current.generation());
    bytes[at..at + 4096].copy_from_slice(&later);
    std::fs::write(&path, bytes).expect("written");
    let text = lines(&lab, &["info"]);
    assert!(text.iter().any(|line| line.starts_with("not writable: ")), "{text:#?}");
    let data = json(&lab, &["info"])["format-specific"]["data"].clone();
    assert!(data["not-writable"].is_string(), "{data}");
    dump(&lab, "a.qed");
}
