//! The events of `serve`: one line of JSON each. Knows no server.

use std::collections::HashMap;
use std::io::{self, Write};

use qed_export::server::DiskEvent;
use qed_export::{Compacted, DeviceError, SpaceUsage};
use serde_json::{Value, json};

use super::low_space::Room;
use crate::console::stream;
use crate::failure::source_text;
use crate::output::text;

/// Where events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Output,
    /// Standard output may be somebody else's.
    Error,
}

/// Writes what is told of the exports.
#[derive(Debug)]
pub(crate) struct Events {
    place: Place,
    /// Less room than this is told.
    extend_below: Option<u64>,
    rooms: HashMap<Vec<u8>, Room>,
}

impl Events {
    pub(crate) fn new(place: Place, extend_below: Option<u64>) -> Self {
        Self { place, extend_below, rooms: HashMap::new() }
    }

    /// Takes in what happened to an export, and tells what is to be told.
    pub(super) fn hear(&mut self, export: &[u8], event: &DiskEvent<'_>) {
        let line = match event {
            DiskEvent::Space(usage) => self.space(export, usage),
            DiskEvent::Compacted(ended) => Some(compacted(export, ended)),
            _ => None,
        };
        if let Some(Err(error)) = line.map(|line| self.write(&line)) {
            tracing::error!(%error, "an event is told to nobody");
        }
    }

    fn space(&mut self, export: &[u8], usage: &SpaceUsage) -> Option<Value> {
        let (below, room) = (self.extend_below?, usage.room()?);
        let known = self.rooms.entry(export.to_vec()).or_default();
        known.gets_low(room, below).then(|| low(export, usage, below))
    }

    fn write(&self, line: &Value) -> io::Result<()> {
        let line = format!("{line}\n");
        match self.place {
            Place::Output => {
                let mut out = stream();
                out.write_all(line.as_bytes())?;
                out.flush()
            }
            Place::Error => io::stderr().write_all(line.as_bytes()),
        }
    }
}

fn low(export: &[u8], usage: &SpaceUsage, below: u64) -> Value {
    let SpaceUsage { end, free, capacity, .. } = usage;
    json!({
        "event": "space-low", "export": text(export), "end": end, "free": free,
        "capacity": capacity, "below": below,
    })
}

fn compacted(export: &[u8], ended: &Result<Compacted, DeviceError>) -> Value {
    match ended {
        Ok(Compacted { end_before, end, moved, busy, tables }) => json!({
            "event": "compacted", "export": text(export), "end-before": end_before, "end": end,
            "moved": moved, "held-back": { "busy": busy, "tables": tables },
        }),
        Err(error) => json!({
            "event": "compaction-failed", "export": text(export), "error": source_text(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_an_object_on_one_line() {
        let usage = SpaceUsage { end: 60, free: Some(30), capacity: Some(100), finding: None };
        let done = Compacted { end_before: 90, end: 60, moved: 20, busy: 4, tables: 0 };
        let table = [
            (
                low(b"a\xff", &usage, 80),
                "{\"event\":\"space-low\",\"export\":\"a\u{fffd}\",\"end\":60,\"free\":30,\
                 \"capacity\":100,\"below\":80}",
            ),
            (
                compacted(b"", &Ok(done)),
                "{\"event\":\"compacted\",\"export\":\"\",\"end-before\":90,\"end\":60,\
                 \"moved\":20,\"held-back\":{\"busy\":4,\"tables\":0}}",
            ),
            (
                compacted(b"x", &Err(DeviceError::ReadOnly)),
                "{\"event\":\"compaction-failed\",\"export\":\"x\",\
                 \"error\":\"the disk is read-only\"}",
            ),
        ];
        for (event, line) in table {
            assert_eq!(event.to_string(), line);
        }
    }

    #[test]
    fn room_is_told_of_each_export_for_itself() {
        let usage = |end| SpaceUsage { end, free: None, capacity: Some(100), finding: None };
        let mut events = Events::new(Place::Error, Some(10));
        let mut is_told = |export: &[u8], end| events.space(export, &usage(end)).is_some();
        assert!(!is_told(b"a", 50) && is_told(b"a", 91) && !is_told(b"a", 95));
        assert!(is_told(b"b", 95) && !is_told(b"a", 90) && is_told(b"a", 91));
        let mut silent = Events::new(Place::Error, None);
        assert!(silent.space(b"a", &usage(100)).is_none());
    }
}
