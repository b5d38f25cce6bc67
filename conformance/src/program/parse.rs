//! What qemu-img prints as JSON, as far as it is asked for.

use serde::Deserialize;

use crate::vector::{CheckOutcome, MapKind, MapRun};

/// `info --output=json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Info {
    pub(super) virtual_size: u64,
    pub(super) cluster_size: u64,
    pub(super) backing_filename: Option<String>,
}

/// `check --output=json`; counts of zero may be left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Check {
    #[serde(default)]
    corruptions: u64,
    #[serde(default)]
    leaks: u64,
    #[serde(default)]
    findings: Vec<Finding>,
}

/// What `qed` adds.
#[derive(Debug, Deserialize)]
struct Finding {
    number: u16,
}

/// One run of `map --output=json`.
#[derive(Debug, Deserialize)]
struct Run {
    start: u64,
    length: u64,
    depth: u64,
    present: bool,
    zero: bool,
    data: bool,
    offset: Option<u64>,
}

pub(super) fn info(stdout: &[u8]) -> Result<Info, String> {
    serde_json::from_slice(stdout).map_err(|error| format!("info prints no such JSON: {error}"))
}

/// The outcome, which must be that of the exit code, and the numbers of the findings.
pub(super) fn check(stdout: &[u8], code: i32) -> Result<(CheckOutcome, Vec<u16>), String> {
    let check: Check = serde_json::from_slice(stdout)
        .map_err(|error| format!("check prints no such JSON: {error}"))?;
    let (outcome, expected) = match (check.corruptions, check.leaks) {
        (0, 0) => (CheckOutcome::Clean, 0),
        (0, _) => (CheckOutcome::Leaks, 3),
        _ => (CheckOutcome::Corrupt, 2),
    };
    if code != expected {
        let Check { corruptions, leaks, .. } = check;
        return Err(format!("exit code {code} with {corruptions} corruptions and {leaks} leaks"));
    }
    let mut numbers: Vec<u16> = check.findings.iter().map(|finding| finding.number).collect();
    numbers.sort_unstable();
    Ok((outcome, numbers))
}

/// The mapping of the image alone: what lies below it is not allocated in it.
pub(super) fn map(stdout: &[u8]) -> Result<Vec<MapRun>, String> {
    let found: Vec<Run> = serde_json::from_slice(stdout)
        .map_err(|error| format!("map prints no such JSON: {error}"))?;
    let mut runs = Vec::new();
    for run in found.into_iter().filter(|run| run.length > 0) {
        let Run { start, length, depth, present, zero, data, offset } = run;
        let kind = match (depth == 0 && present, data, zero) {
            (false, ..) => MapKind::Unallocated,
            (true, true, _) => MapKind::Data { host: offset.ok_or("map gives data no offset")? },
            (true, false, true) => MapKind::Zero,
            (true, false, false) => return Err("map calls a run neither data nor zero".to_owned()),
        };
        MapRun::append(&mut runs, MapRun { at: start, len: length, kind });
    }
    Ok(runs)
}
