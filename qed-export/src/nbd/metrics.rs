//! The counters over HTTP, for programs that collect them. Serves one page and knows no other.

use std::io::{self, Read, Write};

use super::counters::Counters;
use super::socket::Socket;

/// More than any request for a page needs.
const MAX_REQUEST_BYTES: usize = 8 << 10;

/// Reads a request, whatever it is for, and answers with the counters.
pub(super) fn answer(socket: &Socket, counters: &Counters) -> io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = { socket }.read(&mut piece)?;
        request.extend_from_slice(&piece[..read]);
        if read == 0 || request.len() > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let page = counters.open_metrics();
    let len = page.len();
    let head = format!(
        "HTTP/1.0 200 OK\r\n\
         Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    { socket }.write_all(&[head.as_bytes(), page.as_bytes()].concat())
}
