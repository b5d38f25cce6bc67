//! What a server has done so far, for programs that watch it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::request::{Incoming, Request};
use super::wire::Errno;

/// The kinds of requests, by the names that they are shown under.
const KINDS: [&str; 7] =
    ["read", "write", "flush", "trim", "cache", "write_zeroes", "block_status"];

/// Counts of one server, which any thread may read at any time.
#[derive(Debug, Default)]
pub struct Counters {
    opened: AtomicU64,
    closed: AtomicU64,
    turned_away: AtomicU64,
    requests: [AtomicU64; KINDS.len()],
    refused: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections that were begun.
    pub connections: u64,
    /// Connections that are there now.
    pub connected: u64,
    /// Connections that were closed at once because there were too many.
    pub turned_away: u64,
    /// Requests of all kinds.
    pub requests: u64,
    /// Requests that were answered with an error.
    pub refused: u64,
    /// Bytes that clients read.
    pub bytes_read: u64,
    /// Bytes that clients wrote.
    pub bytes_written: u64,
}

impl Counters {
    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let closed = load(&self.closed);
        let connections = load(&self.opened);
        Snapshot {
            connections,
            connected: connections.saturating_sub(closed),
            turned_away: load(&self.turned_away),
            requests: self.requests.iter().map(load).sum(),
            refused: load(&self.refused),
            bytes_read: load(&self.bytes_read),
            bytes_written: load(&self.bytes_written),
        }
    }

    /// The counts in the text form of OpenMetrics.
    #[must_use]
    pub fn open_metrics(&self) -> String {
        let now = self.snapshot();
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            text += &format!("# TYPE {name} {kind}\n# HELP {name} {help}\n");
            let suffix = if kind == "counter" { "_total" } else { "" };
            for (labels, value) in samples {
                writeln!(text, "{name}{suffix}{labels} {value}").expect("strings take everything");
            }
        };
        let one = |value| [(String::new(), value)];
        let kinds: Vec<_> = KINDS
            .iter()
            .zip(&self.requests)
            .map(|(kind, count)| (format!("{{kind=\"{kind}\"}}"), load(count)))
            .collect();
        family("qed_nbd_connections", "counter", "Connections begun.", &one(now.connections));
        family("qed_nbd_connected", "gauge", "Connections now.", &one(now.connected));
        let help = "Connections closed at once because there were too many.";
        family("qed_nbd_turned_away", "counter", help, &one(now.turned_away));
        family("qed_nbd_requests", "counter", "Requests by kind.", &kinds);
        let help = "Requests answered with an error.";
        family("qed_nbd_refused", "counter", help, &one(now.refused));
        family("qed_nbd_read_bytes", "counter", "Bytes read by clients.", &one(now.bytes_read));
        let help = "Bytes written by clients.";
        family("qed_nbd_written_bytes", "counter", help, &one(now.bytes_written));
        text + "# EOF\n"
    }

    pub(super) fn opened(&self) {
        add(&self.opened, 1);
    }

    pub(super) fn closed(&self) {
        add(&self.closed, 1);
    }

    pub(super) fn turned_away(&self) {
        add(&self.turned_away, 1);
    }

    /// A request was answered.
    pub(super) fn answered(&self, incoming: &Incoming, outcome: Result<(), Errno>) {
        if outcome.is_err() {
            add(&self.refused, 1);
        }
        let Ok(request) = incoming.request else { return };
        let kind = match request {
            Request::Read { len, .. } => {
                if outcome.is_ok() {
                    add(&self.bytes_read, len as u64);
                }
                0
            }
            Request::Write { .. } => {
                if outcome.is_ok() {
                    add(&self.bytes_written, incoming.payload as u64);
                }
                1
            }
            Request::Flush => 2,
            Request::Trim { .. } => 3,
            Request::Cache { .. } => 4,
            Request::WriteZeroes { .. } => 5,
            Request::BlockStatus { .. } => 6,
            Request::Disconnect => return,
        };
        add(&self.requests[kind], 1);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
