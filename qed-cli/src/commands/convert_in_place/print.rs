//! What `convert-in-place` prints: the plan, or what was done.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use qed_convert::InPlacePlan;

use crate::args::OutputFormat;
use crate::console::Console;
use crate::failure::shown;
use crate::output::{JsonWriter, human_size};

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
            OutputFormat::Human => console.print(text(plan, name, time)),
            OutputFormat::Json => Ok(json(&mut console.lock(), plan, name, time)?),
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
                let mut out = console.lock();
                let mut json = JsonWriter::new(&mut out);
                json.begin_object()?;
                json.string_member("filename", name.as_bytes())?;
                json.string_member("format", format)?;
                json.plain_member("dry-run", time.is_none())?;
                json.plain_member("file-length-before", before)?;
                json.plain_member("file-length-after", after)?;
                if let Some(time) = time {
                    json.plain_member("seconds", time.as_secs_f64())?;
                }
                json.end_object()?;
                Ok(json.finish()?)
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
    ) -> anyhow::Result<()> {
        match self.output {
            _ if self.quiet => Ok(()),
            OutputFormat::Human => {
                let seconds = time.as_secs_f64();
                console.print(format!("'{}' {what} ({seconds:.3} s).\n", shown(name)))
            }
            OutputFormat::Json => {
                let mut out = console.lock();
                let mut json = JsonWriter::new(&mut out);
                json.begin_object()?;
                json.string_member("filename", name.as_bytes())?;
                json.plain_member("seconds", time.as_secs_f64())?;
                json.end_object()?;
                Ok(json.finish()?)
            }
        }
    }
}

fn text(plan: &InPlacePlan, name: &OsStr, time: Option<Duration>) -> String {
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

fn json(
    out: &mut impl io::Write,
    plan: &InPlacePlan,
    name: &OsStr,
    time: Option<Duration>,
) -> io::Result<()> {
    let mut json = JsonWriter::new(out);
    json.begin_object()?;
    json.string_member("filename", name.as_bytes())?;
    json.string_member("format", "qed")?;
    json.plain_member("dry-run", time.is_none())?;
    json.plain_member("virtual-size", plan.image_size)?;
    json.plain_member("cluster-size", plan.cluster_size)?;
    json.plain_member("table-size", plan.table_size_clusters)?;
    json.plain_member("data-clusters", plan.data_clusters)?;
    json.plain_member("zero-clusters", plan.zero_clusters)?;
    json.plain_member("copied-clusters", plan.copied_clusters)?;
    json.plain_member("file-length-before", plan.file_len[0])?;
    json.plain_member("file-length-after", plan.file_len[1])?;
    json.plain_member("resumed", plan.resumes)?;
    json.plain_member("opens-in-qemu", !plan.is_held())?;
    json.key("dropped")?;
    json.begin_array()?;
    for dropped in &plan.dropped {
        json.string(dropped.to_string())?;
    }
    json.end_array()?;
    if let Some(time) = time {
        json.plain_member("seconds", time.as_secs_f64())?;
    }
    json.end_object()?;
    json.finish()
}
