//! Counters and the space of the disks over HTTP, for programs that collect them. Serves one page and
//! knows no other.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use super::acceptor::{AcceptLimits, Acceptor, Clients};
use super::counters::Counters;
use super::exports::Exports;
use super::open_metrics::{Kind, Page, Sample};
use super::protocol::{ProtocolError, ProtocolServer, ServerHandle};
use super::registry::Registry;
use super::socket::Socket;

/// More than any request for a page needs.
const MAX_REQUEST_BYTES: usize = 8 << 10;
/// Who watches a server is one or a few.
pub(super) const LIMITS: AcceptLimits =
    AcceptLimits { connections: 16, handshake: Duration::from_secs(10), once: false };

/// Answers HTTP with a page of metrics.
#[derive(Debug)]
pub(super) struct MetricsServer {
    pub(super) acceptor: Acceptor,
    pub(super) pages: Pages,
}

/// What a page is made of.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) exports: Exports,
    pub(super) counters: Vec<Arc<Counters>>,
}

impl ProtocolServer for MetricsServer {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn handle(&self) -> Arc<dyn ServerHandle> {
        self.acceptor.handle()
    }

    fn run(self: Box<Self>) -> Result<(), ProtocolError> {
        Ok(self.acceptor.run(&Registry::default(), &self.pages)?)
    }
}

impl Clients for Pages {
    const THREAD: &'static str = "metrics-client";

    fn serve(&self, socket: &Arc<Socket>, _number: u64) {
        if let Err(error) = answer(socket, self) {
            tracing::debug!(%error, "counters");
        }
    }
}

/// Reads a request, whatever it is for, and answers with the page.
fn answer(socket: &Socket, pages: &Pages) -> io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = { socket }.read(&mut piece)?;
        request.extend_from_slice(&piece[..read]);
        if read == 0 || request.len() > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let page = pages.page();
    let len = page.len();
    let head = format!(
        "HTTP/1.0 200 OK\r\n\
         Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    { socket }.write_all(&[head.as_bytes(), page.as_bytes()].concat())
}

impl Pages {
    fn page(&self) -> String {
        let mut page = Page::default();
        self.counters.iter().for_each(|counters| counters.write(&mut page));
        let (mut end, mut free, mut capacity) = (Vec::new(), Vec::new(), Vec::new());
        let (mut moved, mut to_move) = (Vec::new(), Vec::new());
        for export in self.exports.iter() {
            // One that does not tell has no samples.
            let Ok(Some(usage)) = export.device().space_usage() else { continue };
            let (has_moved, has_to) = export.compaction.now();
            let values = [
                (&mut end, Some(usage.end)),
                (&mut free, usage.free),
                (&mut capacity, usage.capacity),
                (&mut moved, Some(has_moved)),
                (&mut to_move, Some(has_to)),
            ];
            for (samples, value) in values {
                let name = export.shown_name();
                samples.extend(value.map(|value| Sample::of("export", name, value)));
            }
        }
        let mut gauge = |name, help, samples: &[_]| page.family(name, Kind::Gauge, help, samples);
        gauge("qed_image_end_bytes", "End of all that was ever used of the image.", &end);
        gauge("qed_image_free_bytes", "Bytes below the end that are free, once looked for.", &free);
        gauge("qed_image_capacity_bytes", "Bytes of the device that holds the image.", &capacity);
        gauge("qed_image_compaction_moved_bytes", "Bytes that the last compaction moved.", &moved);
        gauge("qed_image_compaction_bytes", "Bytes that it has to move in all.", &to_move);
        page.end()
    }
}
