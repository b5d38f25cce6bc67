//! What the control socket says, as JSON.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::device::{Activity, DeviceError, SpaceUsage, chain};
use crate::server::{Counters, Export};

/// Nothing was done, for this reason.
pub(super) fn refusal(text: &str) -> Value {
    json!({ "ok": false, "error": text })
}

/// As [`refusal`], for what a disk says.
pub(super) fn failure(error: &DeviceError) -> Value {
    refusal(&chain(error))
}

/// It was done.
pub(super) fn done() -> Value {
    json!({ "ok": true })
}

/// It was done, and the disk has this size.
pub(super) fn sized(export: &Export) -> Value {
    json!({ "ok": true, "size": export.device().size() })
}

/// What a check found; none for a disk without tables.
pub(super) fn checked(usage: Option<&SpaceUsage>) -> Value {
    let findings: Vec<_> = usage.iter().filter_map(|usage| usage.finding.as_deref()).collect();
    json!({ "ok": true, "findings": findings, "space": usage.map(space) })
}

/// How the exports stand, and who has access to them.
pub(super) fn status<'e>(
    exports: impl Iterator<Item = &'e Arc<Export>>,
    counters: &[Arc<Counters>],
) -> Value {
    let exports: Vec<_> = exports.map(|export| of_export(export)).collect();
    let servers: Vec<_> = counters.iter().map(|counters| of_server(counters)).collect();
    json!({ "ok": true, "exports": exports, "servers": servers })
}

/// The name of an export as JSON has it, which is all text.
pub(super) fn name(export: &Export) -> String {
    String::from_utf8_lossy(export.name()).into_owned()
}

fn of_export(export: &Export) -> Value {
    let device = export.device();
    let state = match device.activity() {
        Activity::Inactive => "inactive",
        Activity::Active => "active",
        Activity::Ended => "ended",
    };
    // One that does not tell has none.
    let usage = device.space_usage().ok().flatten();
    let (moved, total) = export.compaction.now();
    json!({
        "export": name(export),
        "state": state,
        "size": device.size(),
        "read_only": device.is_read_only(),
        "space": usage.as_ref().map(space),
        "finding": usage.as_ref().and_then(|usage| usage.finding.as_deref()),
        "compaction": { "moved": moved, "total": total },
    })
}

fn of_server(counters: &Counters) -> Value {
    let now = counters.snapshot();
    json!({
        "protocol": counters.protocol(),
        "connected": now.connected,
        "requests": now.requests,
        "refused": now.refused,
    })
}

fn space(usage: &SpaceUsage) -> Value {
    json!({ "end": usage.end, "free": usage.free, "capacity": usage.capacity })
}
