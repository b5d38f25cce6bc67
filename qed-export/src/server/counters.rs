//! What the server of one protocol has done so far, for programs that watch it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::open_metrics::{Kind, Page, Sample};

/// What clients ask of a disk, whatever their protocol calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestKind {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// What was written becomes durable.
    Flush,
    /// Nobody wants the bytes of a range any more.
    Trim,
    /// Bytes are read for the cache below.
    Cache,
    /// A range becomes zeros.
    WriteZeroes,
    /// Where data and holes are.
    BlockStatus,
    /// Anything else.
    Other,
}

impl RequestKind {
    const COUNT: usize = Self::Other as usize + 1;

    /// The name that it is shown under.
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::Cache => "cache",
            Self::WriteZeroes => "write_zeroes",
            Self::BlockStatus => "block_status",
            Self::Other => "other",
        }
    }
}

/// Counts of one server, which any thread may read at any time.
#[derive(Debug)]
pub struct Counters {
    protocol: &'static str,
    kinds: &'static [RequestKind],
    opened: AtomicU64,
    closed: AtomicU64,
    turned_away: AtomicU64,
    requests: [AtomicU64; RequestKind::COUNT],
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

/// A connection that counts as there until this is dropped.
#[derive(Debug)]
pub struct Connected<'c>(&'c Counters);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        add(&self.0.closed, 1);
    }
}

impl Counters {
    /// Counts that begin at zero; families of metrics are called `qed_PROTOCOL_...`, and `kinds` are the
    /// kinds of requests that the protocol has.
    #[must_use]
    pub fn new(protocol: &'static str, kinds: &'static [RequestKind]) -> Self {
        let zero = AtomicU64::default;
        Self {
            protocol,
            kinds,
            opened: zero(),
            closed: zero(),
            turned_away: zero(),
            requests: Default::default(),
            refused: zero(),
            bytes_read: zero(),
            bytes_written: zero(),
            bytes_trimmed: zero(),
        }
    }

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

    /// The protocol whose server counts.
    #[must_use]
    pub const fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// A connection is begun, or a disk mounted.
    #[must_use]
    pub fn connect(&self) -> Connected<'_> {
        add(&self.opened, 1);
        Connected(self)
    }

    /// A connection was closed at once because there were too many.
    pub fn turned_away(&self) {
        add(&self.turned_away, 1);
    }

    /// A request of a kind that the protocol has was answered; `len` bytes were read, written or trimmed
    /// if it `is_served`.
    pub fn answered(&self, kind: RequestKind, len: u64, is_served: bool) {
        debug_assert!(self.kinds.contains(&kind), "{kind:?} would not be shown");
        add(&self.requests[kind as usize], 1);
        if !is_served {
            return self.refused();
        }
        match kind {
            RequestKind::Read => add(&self.bytes_read, len),
            RequestKind::Write => add(&self.bytes_written, len),
            RequestKind::Trim => add(&self.bytes_trimmed, len),
            _ => {}
        }
    }

    /// What is no request of any kind was answered with an error.
    pub fn refused(&self) {
        add(&self.refused, 1);
    }

    /// Adds the counts to a page of metrics.
    pub(super) fn write(&self, page: &mut Page) {
        use Kind::{Counter, Gauge};
        let now = self.snapshot();
        let kinds = self.kinds.iter();
        let count = |kind: &RequestKind| load(&self.requests[*kind as usize]);
        let kinds: Vec<_> =
            kinds.map(|kind| Sample::of("kind", kind.name(), count(kind))).collect();
        let mut family = |name, kind, help, samples: &[_]| {
            page.family(&format!("qed_{}_{name}", self.protocol), kind, help, samples);
        };
        let mut one = |name, kind, help, value| family(name, kind, help, &Sample::only(value));
        one("connections", Counter, "Connections begun.", now.connections);
        one("connected", Gauge, "Connections now.", now.connected);
        let help = "Connections closed at once because there were too many.";
        one("turned_away", Counter, help, now.turned_away);
        one("refused", Counter, "Requests answered with an error.", now.refused);
        one("read_bytes", Counter, "Bytes read by clients.", now.bytes_read);
        one("written_bytes", Counter, "Bytes written by clients.", now.bytes_written);
        one("trimmed_bytes", Counter, "Bytes trimmed by clients.", now.bytes_trimmed);
        family("requests", Counter, "Requests by kind.", &kinds);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
