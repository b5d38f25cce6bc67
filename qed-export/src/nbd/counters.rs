//! What a server has done so far, for programs that watch it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::open_metrics::{Kind, Page, Sample};
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
    bytes_trimmed: AtomicU64,
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
    /// Bytes that clients said nobody wants any more.
    pub bytes_trimmed: u64,
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
            bytes_trimmed: load(&self.bytes_trimmed),
        }
    }

    /// Adds the counts to a page of metrics.
    pub(super) fn write(&self, page: &mut Page) {
        use Kind::{Counter, Gauge};
        let now = self.snapshot();
        let kinds = KINDS.iter().zip(&self.requests);
        let kinds: Vec<_> =
            kinds.map(|(kind, count)| Sample::of("kind", *kind, load(count))).collect();
        let mut one = |name, kind, help, value| page.family(name, kind, help, &Sample::only(value));
        one("qed_nbd_connections", Counter, "Connections begun.", now.connections);
        one("qed_nbd_connected", Gauge, "Connections now.", now.connected);
        let help = "Connections closed at once because there were too many.";
        one("qed_nbd_turned_away", Counter, help, now.turned_away);
        one("qed_nbd_refused", Counter, "Requests answered with an error.", now.refused);
        one("qed_nbd_read_bytes", Counter, "Bytes read by clients.", now.bytes_read);
        one("qed_nbd_written_bytes", Counter, "Bytes written by clients.", now.bytes_written);
        one("qed_nbd_trimmed_bytes", Counter, "Bytes trimmed by clients.", now.bytes_trimmed);
        page.family("qed_nbd_requests", Counter, "Requests by kind.", &kinds);
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
            Request::Trim { len, .. } => {
                if outcome.is_ok() {
                    add(&self.bytes_trimmed, len);
                }
                3
            }
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
