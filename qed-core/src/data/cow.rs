//! Copy-on-write: what a write leaves of the first and the last of its new clusters, the head and the
//! tail, is the backing file's bytes, or zeros.

use std::borrow::Cow;
use std::ops::Range;

use qed_io::{Piece, PieceMut, RunKind};
use qed_spec::{GuestOffset, HostOffset};

use crate::data::{DataPath, ZEROS};
use crate::error::ImageError;

/// Bytes that are copied at a time, at most.
const PIECE: u64 = 1 << 20;

/// The part of a new cluster before the guest bytes, or behind them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    guest: GuestOffset,
    host: HostOffset,
    len: u64,
    fill: Fill,
}

/// How an edge comes to read as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// Its space reads as zeros already, and so does the edge.
    Nothing,
    Zeros,
    /// By what the backing file has there.
    Copied,
}

impl Edge {
    /// The guest bytes that have to be copied from the backing file; may be empty.
    pub(crate) fn copied(&self) -> Range<u64> {
        let start = self.guest.get();
        let len = if self.fill == Fill::Copied { self.len } else { 0 };
        start..start + len
    }
}

impl DataPath {
    /// The edge of `len` bytes from `guest` on, which goes to `host`. What was unallocated shows the
    /// backing file; fresh space reads as zeros.
    pub(crate) fn edge(
        &self,
        (guest, host): (GuestOffset, HostOffset),
        len: u64,
        was_unallocated: bool,
        is_fresh: bool,
    ) -> Result<Edge, ImageError> {
        let fill = if len == 0 {
            Fill::Nothing
        } else if was_unallocated && self.backing_may_show(guest, len)? {
            Fill::Copied
        } else if is_fresh && self.zeros_are_zeros() {
            Fill::Nothing
        } else {
            Fill::Zeros
        };
        Ok(Edge { guest, host, len, fill })
    }

    /// Writes an edge.
    // spec: QED-RW-05
    pub(crate) fn fill(&self, edge: &Edge) -> Result<(), ImageError> {
        match edge.fill {
            Fill::Copied => self.write(&self.copy_of(edge)?, edge.host),
            Fill::Nothing | Fill::Zeros => self.fill_zeros(edge),
        }
    }

    /// Writes an edge whose bytes are zeros.
    pub(crate) fn fill_zeros(&self, edge: &Edge) -> Result<(), ImageError> {
        if edge.fill != Fill::Zeros {
            return Ok(());
        }
        let at = edge.host.get();
        self.write_zeroes(at..at + edge.len)
    }

    /// Writes guest bytes and the edges, in one call of the storage; long zeros before it.
    pub(crate) fn write_with(
        &self,
        pieces: &[Piece<'_>],
        host: HostOffset,
        [head, tail]: &[Edge; 2],
    ) -> Result<(), ImageError> {
        if [head, tail].iter().all(|edge| edge.fill == Fill::Nothing) {
            return self.write_pieces(pieces, host);
        }
        let (before, behind) = (self.bytes_of(head)?, self.bytes_of(tail)?);
        let host = HostOffset::new(host.get() - before.len() as u64);
        let edge = |bytes| [Piece::Own(bytes)].into_iter();
        let all = edge(&before).chain(pieces.iter().copied()).chain(edge(&behind));
        self.write_pieces(&all.filter(|piece| !piece.is_empty()).collect::<Vec<_>>(), host)
    }

    /// Copies `len` bytes from one place to another; `is_zero` if that reads as zeros before.
    pub(crate) fn copy(
        &self,
        from: u64,
        to: u64,
        len: u64,
        is_zero: bool,
    ) -> Result<(), ImageError> {
        let mut buf = vec![0; usize::try_from(len.min(PIECE)).expect("at most 1 MiB")];
        let mut done = 0;
        while done < len {
            let at = HostOffset::new(from + done);
            let run = self.run_at(at)?;
            let mut part = PIECE.min(len - done);
            if run.kind == RunKind::Hole && run.len > 0 && self.zeros_are_zeros() {
                let hole = run.len.min(len - done);
                if !is_zero {
                    self.write_zeroes(to + done..to + done + hole)?;
                }
                done += hole;
                continue;
            }
            if run.len > 0 {
                part = part.min(run.len);
            }
            let piece = &mut buf[..usize::try_from(part).expect("at most 1 MiB")];
            self.read(piece, at)?;
            self.write(piece, HostOffset::new(to + done))?;
            done += part;
        }
        Ok(())
    }

    /// What an edge is to hold, unless its space does by now: long zeros are written here.
    fn bytes_of(&self, edge: &Edge) -> Result<Cow<'static, [u8]>, ImageError> {
        let zeros = usize::try_from(edge.len).ok().and_then(|len| ZEROS.get(..len));
        Ok(match (edge.fill, zeros) {
            (Fill::Nothing, _) => Cow::Borrowed(&[]),
            (Fill::Zeros, Some(zeros)) => Cow::Borrowed(zeros),
            (Fill::Zeros, None) => {
                self.fill_zeros(edge)?;
                Cow::Borrowed(&[])
            }
            (Fill::Copied, _) => Cow::Owned(self.copy_of(edge)?),
        })
    }

    /// What the backing file has at an edge that is copied.
    fn copy_of(&self, edge: &Edge) -> Result<Vec<u8>, ImageError> {
        let range = edge.copied();
        let len = range.end - range.start;
        let mut bytes = vec![0; usize::try_from(len).expect("less than a cluster")];
        self.read_backing(&mut [PieceMut::Own(&mut bytes)], edge.guest)?;
        Ok(bytes)
    }
}
