//! `--extend-below`: tells on which exports there is little room left on the device. Knows no server.

use std::collections::HashMap;
use std::io::{self, Write};

use qed_export::SpaceUsage;
use serde_json::{Value, json};

use crate::console::stream;
use crate::output::text;

/// Where events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Events {
    ToOutput,
    /// Standard output may be somebody else's.
    ToError,
}

/// Exports whose room is watched.
#[derive(Debug)]
pub(super) struct LowSpace {
    below: u64,
    events: Events,
    exports: HashMap<Vec<u8>, Room>,
}

/// Whether there was little room when it was last looked at.
#[derive(Debug, Default, Clone, Copy)]
struct Room {
    is_low: bool,
}

impl Room {
    /// Whether there is little now, and was not before.
    fn gets_low(&mut self, room: u64, below: u64) -> bool {
        let was_low = std::mem::replace(&mut self.is_low, room < below);
        self.is_low && !was_low
    }
}

impl LowSpace {
    /// Less than `below` bytes are little.
    pub(super) fn new(below: u64, events: Events) -> Self {
        Self { below, events, exports: HashMap::new() }
    }

    /// Takes in where the space of an export stands, and tells if there is too little from now on.
    pub(super) fn look(&mut self, export: &[u8], usage: SpaceUsage) {
        let Some(room) = usage.room() else { return };
        if self.exports.entry(export.to_vec()).or_default().gets_low(room, self.below) {
            let line = format!("{}\n", event(export, usage, self.below));
            if let Err(error) = self.write(&line) {
                tracing::error!(%error, "nobody is told that space is low");
            }
        }
    }

    fn write(&self, line: &str) -> io::Result<()> {
        match self.events {
            Events::ToOutput => {
                let mut out = stream();
                out.write_all(line.as_bytes())?;
                out.flush()
            }
            Events::ToError => io::stderr().write_all(line.as_bytes()),
        }
    }
}

/// One line of JSON.
fn event(export: &[u8], usage: SpaceUsage, below: u64) -> Value {
    let SpaceUsage { end, free, capacity } = usage;
    json!({
        "event": "space-low", "export": text(export), "end": end, "free": free,
        "capacity": capacity, "below": below,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_until_there_was_enough() {
        let mut room = Room::default();
        let rooms = [100, 10, 9, 0, 5, 10, 9, 9, 11, 3];
        let told = rooms.map(|now| room.gets_low(now, 10));
        let want = [false, false, true, false, false, false, true, false, false, true];
        assert_eq!(told, want);
        assert!(Room::default().gets_low(0, 1), "one that begins low is told");
        assert!(!Room::default().gets_low(0, 0), "nothing is below nothing");
    }

    #[test]
    fn room_is_what_the_device_has_behind_the_end_and_what_is_free_below() {
        let usage = SpaceUsage { end: 60, free: Some(30), capacity: Some(100) };
        assert_eq!(usage.room(), Some(70));
        assert_eq!(SpaceUsage { free: None, ..usage }.room(), Some(40));
        assert_eq!(SpaceUsage { end: 120, ..usage }.room(), Some(30), "a device that shrank");
        assert_eq!(SpaceUsage { capacity: None, ..usage }.room(), None, "a file");
        let line = event(b"a\xff", usage, 80).to_string();
        let want = "{\"below\":80,\"capacity\":100,\"end\":60,\"event\":\"space-low\",\
                    \"export\":\"a\u{fffd}\",\"free\":30}";
        assert_eq!(
            serde_json::from_str::<Value>(&line).unwrap(),
            serde_json::from_str::<Value>(want).unwrap()
        );
        assert!(!line.contains('\n'), "{line}");
    }
}
