//! Counters and the space of the disks over HTTP, for programs that collect them. Serves one page and
//! knows no other.

use std::io::{self, Read, Write};

use super::counters::Counters;
use super::exports::Exports;
use super::open_metrics::{Kind, Page, Sample};
use super::socket::Socket;

/// More than any request for a page needs.
const MAX_REQUEST_BYTES: usize = 8 << 10;

/// Reads a request, whatever it is for, and answers with the page.
pub(super) fn answer(socket: &Socket, counters: &Counters, exports: &Exports) -> io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = { socket }.read(&mut piece)?;
        request.extend_from_slice(&piece[..read]);
        if read == 0 || request.len() > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let page = page(counters, exports);
    let len = page.len();
    let head = format!(
        "HTTP/1.0 200 OK\r\n\
         Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    { socket }.write_all(&[head.as_bytes(), page.as_bytes()].concat())
}

fn page(counters: &Counters, exports: &Exports) -> String {
    let mut page = Page::default();
    counters.write(&mut page);
    let (mut end, mut free, mut capacity) = (Vec::new(), Vec::new(), Vec::new());
    let (mut moved, mut to_move) = (Vec::new(), Vec::new());
    for export in exports.iter() {
        // One that does not tell has no samples.
        let Ok(Some(usage)) = export.device.space_usage() else { continue };
        let (has_moved, has_to) = export.compaction.now();
        let values = [
            (&mut end, Some(usage.end)),
            (&mut free, usage.free),
            (&mut capacity, usage.capacity),
            (&mut moved, Some(has_moved)),
            (&mut to_move, Some(has_to)),
        ];
        for (samples, value) in values {
            let name = export.name().escape_ascii().to_string();
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
