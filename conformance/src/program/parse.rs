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
    #[serde(default)]
    format_specific: Specific,
}

#[derive(Debug, Default, Deserialize)]
struct Specific {
    #[serde(default)]
    data: SpecificData,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SpecificData {
    #[serde(default)]
    unsupported_features: Vec<serde_json::Value>,
}

impl Info {
    /// Why the image is only shown and does not open, if it does not.
    pub(super) fn refusal(&self) -> Option<String> {
        let features = &self.format_specific.data.unsupported_features;
        (!features.is_empty()).then(|| format!("unsupported features {features:?}"))
    }
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
    /// What `qed` adds.
    #[serde(default)]
    free_clusters: u64,
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
        (0, 0) if check.free_clusters > 0 => (CheckOutcome::Free, 0),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_the_image_is_not_allocated_in_it() {
        let run = |start: u64, depth: u64, flags: &str| {
            format!("{{\"start\":{start},\"length\":512,\"depth\":{depth},{flags}}}")
        };
        let data = "\"present\":true,\"zero\":false,\"data\":true,\"offset\":4096";
        let zero = "\"present\":true,\"zero\":true,\"data\":false";
        let absent = "\"present\":false,\"zero\":true,\"data\":false";
        let runs = [run(0, 0, data), run(512, 0, zero), run(1024, 1, data), run(1536, 0, absent)];
        let expected = [
            MapRun { at: 0, len: 512, kind: MapKind::Data { host: 4096 } },
            MapRun { at: 512, len: 512, kind: MapKind::Zero },
            MapRun { at: 1024, len: 1024, kind: MapKind::Unallocated },
        ];
        assert_eq!(map(format!("[{}]", runs.join(",")).as_bytes()).unwrap(), expected);
        let no_offset = run(0, 0, "\"present\":true,\"zero\":false,\"data\":true");
        assert!(map(format!("[{no_offset}]").as_bytes()).is_err());
    }

    #[test]
    fn the_exit_code_of_a_check_is_that_of_its_counts() {
        assert_eq!(check(b"{}", 0), Ok((CheckOutcome::Clean, vec![])));
        assert_eq!(check(b"{\"free-clusters\":1}", 0), Ok((CheckOutcome::Free, vec![])));
        assert_eq!(check(b"{\"leaks\":1}", 3), Ok((CheckOutcome::Leaks, vec![])));
        let both =
            b"{\"leaks\":1,\"corruptions\":2,\"findings\":[{\"number\":302},{\"number\":201}]}";
        assert_eq!(check(both, 2), Ok((CheckOutcome::Corrupt, vec![201, 302])));
        for (json, code) in [(&both[..], 0), (b"{}", 3), (b"{\"leaks\":1}", 2), (b"", 0)] {
            assert!(check(json, code).is_err());
        }
    }
}
