//! What `convert-in-place` prints: the plan, or what was done.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use qed_convert::in_place::InPlacePlan;
use serde_json::{Value, json};

use crate::args::OutputFormat;
use crate::compaction::Outcome;
use crate::console::Console;
use crate::failure::shown;
use crate::output::{human_size, text, write_json};

/// For whom, and whether at all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) output: OutputFormat,
    pub(super) quiet: bool,
}

impl Form {
    /// Shows what is planned, or with a time, what was done.
    pub(super) fn plan(
        self,
        console: &Console,
        plan: &InPlacePlan,
        name: &OsStr,
        time: Option<Duration>,
    ) -> anyhow::Result<()> {
        match self.output {
            _ if self.quiet => Ok(()),
            OutputFormat::Human => console.print(plan_text(plan, name, time)),
            OutputFormat::Json => Ok(write_json(console.lock(), plan_json(plan, name, time))?),
        }
    }

    /// The lengths of the file, before and after; without a time they are what is planned.
    pub(super) fn lens(
        self,
        console: &Console,
        name: &OsStr,
        format: &str,
        [before, after]: [u64; 2],
        time: Option<Duration>,
    ) -> anyhow::Result<()> {
        let human = || match time {
            Some(time) => {
                let seconds = time.as_secs_f64();
                format!("'{}' is {format} now ({seconds:.3} s).\n", shown(name))
            }
            None => format!("'{}' can become {format}. Nothing was written.\n", shown(name)),
        };
        match self.output {
            _ if self.quiet => Ok(()),
            OutputFormat::Human => console.print(format!(
                "{}file length before: {before} bytes\nfile length after: {after} bytes\n",
                human()
            )),
            OutputFormat::Json => {
                let lens = json!({
                    "filename": text(name.as_bytes()),
                    "format": format,
                    "dry-run": time.is_none(),
                    "file-length-before": before,
                    "file-length-after": after,
                    "seconds": time.map(|time| time.as_secs_f64()),
                });
                Ok(write_json(console.lock(), lens)?)
            }
        }
    }

    /// One line on an image without a plan.
    pub(super) fn done(
        self,
        console: &Console,
        name: &OsStr,
        what: &str,
        time: Duration,
        compacted: Option<Outcome>,
    ) -> anyhow::Result<()> {
        match self.output {
            _ if self.quiet => Ok(()),
            OutputFormat::Human => {
                let seconds = time.as_secs_f64();
                console.print(format!("'{}' {what} ({seconds:.3} s).\n", shown(name)))?;
                console.print(compacted.map_or(String::new(), |outcome| outcome.text()))
            }
            OutputFormat::Json => {
                let done = json!({
                    "filename": text(name.as_bytes()),
                    "seconds": time.as_secs_f64(),
                    "compacted": compacted.map(|outcome| outcome.json()),
                });
                Ok(write_json(console.lock(), done)?)
            }
        }
    }
}

fn plan_text(plan: &InPlacePlan, name: &OsStr, time: Option<Duration>) -> String {
    let name = shown(name);
    let [before, after] = plan.file_len;
    let mut text = match time {
        Some(time) => format!("'{name}' is a QED image now ({:.3} s).\n", time.as_secs_f64()),
        None => format!("'{name}' can become a QED image. Nothing was written.\n"),
    };
    let lines = [
        ("virtual size", format!("{} ({} bytes)", human_size(plan.image_size), plan.image_size)),
        ("cluster_size", plan.cluster_size.to_string()),
        ("table_size", plan.table_size_clusters.to_string()),
        ("clusters that stay in place", plan.data_clusters.to_string()),
        ("zero clusters", plan.zero_clusters.to_string()),
        ("clusters that are copied", plan.copied_clusters.to_string()),
        ("file length before", format!("{} ({before} bytes)", human_size(before))),
        ("file length after", format!("{} ({after} bytes)", human_size(after))),
    ];
    for (key, value) in lines {
        let _infallible = writeln!(text, "{key}: {value}");
    }
    if time.is_some() {
        let program = "qed convert-in-place";
        let _infallible = writeln!(
            text,
            "Until it is written to, this makes it what it was: {program} --undo {name}"
        );
        if plan.is_held() {
            let _infallible = writeln!(
                text,
                "QEMU cannot open it before the first write by qed, or this, which gives up what was \
                 dropped: {program} --finalize {name}"
            );
        }
    }
    text
}

fn plan_json(plan: &InPlacePlan, name: &OsStr, time: Option<Duration>) -> Value {
    json!({
        "filename": text(name.as_bytes()),
        "format": "qed",
        "dry-run": time.is_none(),
        "virtual-size": plan.image_size,
        "cluster-size": plan.cluster_size,
        "table-size": plan.table_size_clusters,
        "data-clusters": plan.data_clusters,
        "zero-clusters": plan.zero_clusters,
        "copied-clusters": plan.copied_clusters,
        "file-length-before": plan.file_len[0],
        "file-length-after": plan.file_len[1],
        "resumed": plan.resumes,
        "opens-in-qemu": !plan.is_held(),
        "dropped": plan.dropped.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "seconds": time.map(|time| time.as_secs_f64()),
    })
}
