//! What `check` prints: `qemu-img`'s summary on standard output, the findings on standard error.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use qed_check::{Class, Finding, Report, Statistics};
use qed_core::JournalReplay;
use serde_json::{Value, json};

use super::FoundInJournal;
use crate::args::Format;
use crate::console::Console;
use crate::failure::shown;
use crate::output::{text, unless_empty};

/// The summary for people.
pub(super) fn human(journal: &FoundInJournal, report: &Report) -> String {
    let (corruptions, leaks) = (report.corruptions(), report.leaks());
    let mut text = in_journal(journal) + &repaired(report);
    if corruptions == 0 && leaks == 0 {
        text += "No errors were found on the image.\n";
    }
    if corruptions > 0 {
        text += &format!(
            "\n{corruptions} errors were found on the image.\n\
             Data may be corrupted, or further writes to the image may corrupt it.\n"
        );
    }
    if leaks > 0 {
        text += &format!(
            "\n{leaks} leaked clusters were found on the image.\n\
             This means waste of disk space, but no harm to data.\n"
        );
    }
    text + &free_space(report) + &shares(&report.statistics)
}

/// A closed image has no line about its journal, as `qemu-img` prints none.
fn in_journal(journal: &FoundInJournal) -> String {
    match journal {
        FoundInJournal::Nothing => String::new(),
        FoundInJournal::Waiting(JournalReplay { commits, .. }) => {
            format!(
                "Commits that wait in the journal and count as written to the tables: {commits}\n"
            )
        }
        FoundInJournal::Replayed(JournalReplay { commits, .. }) => {
            format!("Commits of the journal that were written to the tables: {commits}\n")
        }
    }
}

/// An image without any has no line about it, as `qemu-img` prints none.
fn free_space(report: &Report) -> String {
    match report.statistics.free_clusters {
        None | Some(0) => String::new(),
        Some(clusters) => {
            format!("Clusters of free space, which the next writer uses: {clusters}\n")
        }
    }
}

fn repaired(report: &Report) -> String {
    let counts = &report.repaired.counts;
    let (leaks, corruptions) = (counts.of_class(Class::Leak), counts.of_class(Class::Corruption));
    if leaks == 0 && corruptions == 0 {
        return String::new();
    }
    format!(
        "The following inconsistencies were found and repaired:\n\n    {leaks} leaked clusters\n    \
         {corruptions} corruptions\n\nDouble checking the fixed image now...\n"
    )
}

fn shares(statistics: &Statistics) -> String {
    let (total, allocated) = (statistics.total_clusters, statistics.allocated_clusters);
    if total == 0 || allocated == 0 {
        return String::new();
    }
    format!(
        "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters\n",
        percent(allocated, total),
        percent(statistics.fragmented_clusters, allocated),
        percent(statistics.compressed_clusters, allocated),
    )
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

/// The summary as JSON, with the findings as one key more than `qemu-img` has.
pub(super) fn json(journal: &FoundInJournal, report: &Report, name: &OsStr) -> Value {
    // `qemu-img` leaves out counts of zero.
    let count = |count: u64| Some(count).filter(|count| *count > 0);
    let fixed = &report.repaired.counts;
    let statistics = &report.statistics;
    let (waiting, replayed) = match journal {
        FoundInJournal::Nothing => (None, None),
        FoundInJournal::Waiting(it) => (Some(it.commits), None),
        FoundInJournal::Replayed(it) => (None, Some(it.commits)),
    };
    let findings = report.findings.iter().map(|finding| {
        json!({
            "number": finding.kind.number(),
            "class": class_name(finding.kind.class()),
            "text": finding.to_string(),
        })
    });
    json!({
        "total-clusters": statistics.total_clusters,
        "corruptions": count(report.corruptions()),
        "corruptions-fixed": count(fixed.of_class(Class::Corruption)),
        "check-errors": 0,
        "leaks": count(report.leaks()),
        "leaks-fixed": count(fixed.of_class(Class::Leak)),
        "free-clusters": statistics.free_clusters,
        "punched-bytes": count(report.repaired.punched_bytes),
        "allocated-clusters": count(statistics.allocated_clusters),
        "filename": text(name.as_bytes()),
        "format": Format::Qed.name(),
        "fragmented-clusters": count(statistics.fragmented_clusters),
        "journal-commits": waiting,
        "journal-commits-replayed": replayed,
        "findings": unless_empty(findings.collect()),
    })
}

/// One line on standard error for each finding.
pub(super) fn findings(console: &Console, report: &Report) {
    for finding in &report.repaired.findings {
        console.say(&format!("repaired: {}", line(finding)));
    }
    for finding in &report.findings {
        console.say(&line(finding));
    }
    let counted = report.counts.iter().map(|(_, count)| count).sum::<u64>();
    let listed: u64 = report.findings.iter().map(weight).sum();
    if counted > listed {
        console.say(&format!("and {} more", counted - listed));
    }
}

/// Says what became of space that nothing names, and what becomes of what a repair kept.
pub(super) fn given_back(console: &Console, report: &Report, name: &OsStr) {
    let punched = report.repaired.punched_bytes;
    if punched > 0 {
        console.say(&format!("punched: {punched} bytes of leaks, which take no space any more"));
    }
    let kept = report.repaired.kept_clusters;
    if kept == 0 || report.corruptions() > 0 {
        return;
    }
    let clusters = if kept == 1 { "cluster" } else { "clusters" };
    let next = match report.statistics.free_clusters {
        Some(_) => "the next writer of the image uses them".to_owned(),
        None => format!("'qed check -f qed -r leaks {}' gives them back", shown(name)),
    };
    console.say(&format!("kept: {kept} {clusters} that no table names; {next}"));
}

fn weight(finding: &Finding) -> u64 {
    match finding.place {
        qed_check::Place::Clusters { count, .. } => count,
        _ => 1,
    }
}

fn line(finding: &Finding) -> String {
    let class = class_name(finding.kind.class());
    format!("{class} {}: {finding}", finding.kind.number())
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Corruption => "error",
        Class::Leak => "leak",
        Class::Note => "note",
    }
}
