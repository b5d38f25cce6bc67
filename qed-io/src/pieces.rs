//! Where the bytes of a transfer lie in memory: in slices of this program, or in memory that others
//! change meanwhile, such as a guest's.
//!
//! Owns lists of such pieces, their parts, and the way through memory of this program for what wants
//! slices. Knows no storage.

mod sys;

use std::ops::Range;

pub use sys::SharedSlice;

/// Bytes that are to be written.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// Of this program.
    Own(&'a [u8]),
    /// In memory that others may change: what is written may be old and new bytes in any mixture.
    Shared(SharedSlice<'a>),
}

/// Bytes that are to be filled.
#[derive(Debug)]
pub enum PieceMut<'a> {
    /// Of this program.
    Own(&'a mut [u8]),
    /// In memory that others may read and change meanwhile.
    Shared(SharedSlice<'a>),
}

/// The most bytes that go through memory of this program at a time, for pieces that others share.
const BOUNCE_BYTES: u64 = 64 << 10;

impl<'a> Piece<'a> {
    /// Bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Shared(slice) => slice.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they begin, for a call of the kernel that reads them.
    pub(crate) fn address(&self) -> *const u8 {
        match self {
            Self::Own(bytes) => bytes.as_ptr(),
            Self::Shared(slice) => slice.address(),
        }
    }

    #[inline]
    fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Own(bytes) => Self::Own(&bytes[range]),
            Self::Shared(slice) => Self::Shared(slice.part(range)),
        }
    }
}

impl PieceMut<'_> {
    /// Bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Shared(slice) => slice.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes all of it zeros.
    pub fn fill_zeroes(&mut self) {
        match self {
            Self::Own(bytes) => bytes.fill(0),
            Self::Shared(slice) => slice.fill(0),
        }
    }

    /// Where they begin, for a call of the kernel that fills them.
    pub(crate) fn address(&mut self) -> *mut u8 {
        match self {
            Self::Own(bytes) => bytes.as_mut_ptr(),
            Self::Shared(slice) => slice.address(),
        }
    }

    #[inline]
    fn part(&mut self, range: Range<usize>) -> PieceMut<'_> {
        match self {
            Self::Own(bytes) => PieceMut::Own(&mut bytes[range]),
            Self::Shared(slice) => PieceMut::Shared(slice.part(range)),
        }
    }
}

/// Bytes in all pieces; more than any storage has where the sum overflows.
#[must_use]
#[inline]
pub fn pieces_len(pieces: &[Piece<'_>]) -> u64 {
    pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.len() as u64))
}

/// As [`pieces_len`], of pieces to be filled.
#[must_use]
#[inline]
pub fn pieces_mut_len(pieces: &[PieceMut<'_>]) -> u64 {
    pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.len() as u64))
}

/// Calls `act` with those `len` bytes of all pieces that come after the first `from`.
#[inline]
pub fn with_part<R>(
    pieces: &[Piece<'_>],
    from: u64,
    len: u64,
    act: impl FnOnce(&[Piece<'_>]) -> R,
) -> R {
    if let [one] = pieces {
        let inside = inside(0, one.len(), from, len);
        return act(&[one.part(inside)]);
    }
    let mut start = 0;
    let parts = pieces.iter().map(|piece| {
        let inside = inside(start, piece.len(), from, len);
        start += piece.len() as u64;
        piece.part(inside)
    });
    act(&parts.filter(|part| !part.is_empty()).collect::<Vec<_>>())
}

/// As [`with_part`], of pieces to be filled.
#[inline]
pub fn with_part_mut<R>(
    pieces: &mut [PieceMut<'_>],
    from: u64,
    len: u64,
    act: impl FnOnce(&mut [PieceMut<'_>]) -> R,
) -> R {
    if let [one] = pieces {
        let inside = inside(0, one.len(), from, len);
        return act(&mut [one.part(inside)]);
    }
    let mut start = 0;
    let parts = pieces.iter_mut().map(|piece| {
        let inside = inside(start, piece.len(), from, len);
        start += piece.len() as u64;
        piece.part(inside)
    });
    act(&mut parts.filter(|part| !part.is_empty()).collect::<Vec<_>>())
}

/// Lets `read` fill the pieces with what begins at byte `at` of something, by slices of this program:
/// those pieces themselves, and a short buffer for what others share.
///
/// # Errors
/// Those of `read`, which ends with the first.
pub fn fill_pieces<E>(
    pieces: &mut [PieceMut<'_>],
    at: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = at;
    let is_shared = |piece: &PieceMut<'_>| matches!(piece, PieceMut::Shared(_));
    for run in pieces.chunk_by_mut(|a, b| is_shared(a) && is_shared(b)) {
        let len = pieces_mut_len(run);
        match run {
            [PieceMut::Own(bytes)] => read(bytes, at)?,
            run => fill_by_copies(run, at, BOUNCE_BYTES, &mut read)?,
        }
        // What is past the last byte that can be is refused there.
        at = at.saturating_add(len);
    }
    Ok(())
}

/// As [`fill_pieces`], with a copy of every piece by a buffer of at most `most` bytes.
pub(crate) fn fill_by_copies<E>(
    pieces: &mut [PieceMut<'_>],
    at: u64,
    most: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut bounce = Vec::new();
    for (from, len) in bounces(pieces_mut_len(pieces), most) {
        bounce.resize(index(len), 0);
        read(&mut bounce, at.saturating_add(from))?;
        let mut rest = &bounce[..];
        with_part_mut(pieces, from, len, |parts| {
            for part in parts {
                let (now, later) = rest.split_at(part.len());
                rest = later;
                match part {
                    PieceMut::Own(bytes) => bytes.copy_from_slice(now),
                    PieceMut::Shared(slice) => slice.copy_from(now),
                }
            }
        });
    }
    Ok(())
}

/// Shows `write` the bytes of the pieces, which go to byte `at` of something and behind, as
/// [`fill_pieces`] does.
///
/// # Errors
/// Those of `write`, which ends with the first.
pub fn show_pieces<E>(
    pieces: &[Piece<'_>],
    at: u64,
    mut write: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = at;
    let is_shared = |piece: &Piece<'_>| matches!(piece, Piece::Shared(_));
    for run in pieces.chunk_by(|a, b| is_shared(a) && is_shared(b)) {
        match run {
            [Piece::Own(bytes)] => write(bytes, at)?,
            run => show_by_copies(run, at, BOUNCE_BYTES, &mut write)?,
        }
        at = at.saturating_add(pieces_len(run));
    }
    Ok(())
}

/// As [`show_pieces`], with a copy of every piece by a buffer of at most `most` bytes.
pub(crate) fn show_by_copies<E>(
    pieces: &[Piece<'_>],
    at: u64,
    most: u64,
    mut write: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut bounce = Vec::new();
    for (from, len) in bounces(pieces_len(pieces), most) {
        bounce.resize(index(len), 0);
        let mut rest = &mut bounce[..];
        with_part(pieces, from, len, |parts| {
            for part in parts {
                let (now, later) = std::mem::take(&mut rest).split_at_mut(part.len());
                rest = later;
                match part {
                    Piece::Own(bytes) => now.copy_from_slice(bytes),
                    Piece::Shared(slice) => slice.copy_to(now),
                }
            }
        });
        write(&bounce, at.saturating_add(from))?;
    }
    Ok(())
}

/// The parts of `len` bytes that go through a buffer of `most` one after the other: where each begins,
/// and its length.
fn bounces(len: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..len).step_by(index(most)).map(move |from| (from, most.min(len - from)))
}

/// Which bytes of a piece, which begins after `start` bytes of a list, are among `len` from byte `from`
/// of the list.
#[inline]
fn inside(start: u64, piece: usize, from: u64, len: u64) -> Range<usize> {
    let within = |at: u64| index(at.saturating_sub(start)).min(piece);
    within(from)..within(from.saturating_add(len))
}

#[inline]
fn index(at: u64) -> usize {
    usize::try_from(at).expect("this is a 64-bit system")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists of pieces that hold 0, 1, 2, ... in all, which are shared by turns.
    fn with_lists(mut check: impl FnMut(&mut [PieceMut<'_>], &str)) {
        let lens: [&[usize]; 6] =
            [&[], &[0], &[9], &[3, 0, 5], &[1, 2, 3, 4, 5], &[70_000, 1, 200_000, 3]];
        for lens in lens {
            for shared in 0..1_u32 << lens.len() {
                let mut next = 0;
                let mut memory: Vec<Vec<u8>> = Vec::new();
                for &len in lens {
                    memory.push((next..next + len).map(byte_of).collect());
                    next += len;
                }
                let mut list: Vec<_> = memory
                    .iter_mut()
                    .enumerate()
                    .map(|(i, bytes)| match shared >> i & 1 {
                        1 => PieceMut::Shared(SharedSlice::from(&mut bytes[..])),
                        _ => PieceMut::Own(bytes),
                    })
                    .collect();
                check(&mut list, &format!("{lens:?} shared {shared:b}"));
            }
        }
    }

    fn byte_of(i: usize) -> u8 {
        i.to_le_bytes()[0]
    }

    fn reader<'p>(pieces: &'p [PieceMut<'_>]) -> Vec<Piece<'p>> {
        let piece = |piece: &'p PieceMut<'_>| match piece {
            PieceMut::Own(bytes) => Piece::Own(bytes),
            PieceMut::Shared(slice) => Piece::Shared(*slice),
        };
        pieces.iter().map(piece).collect()
    }

    fn bytes_of(pieces: &[Piece<'_>]) -> Vec<u8> {
        let mut all = Vec::new();
        show_pieces(pieces, 5, |bytes, at| {
            assert_eq!(at, 5 + all.len() as u64);
            all.extend_from_slice(bytes);
            Ok::<(), ()>(())
        })
        .unwrap();
        all
    }

    #[test]
    fn what_is_shown_and_filled_is_every_byte_in_its_order() {
        with_lists(|list, what| {
            let len = usize::try_from(pieces_mut_len(list)).unwrap();
            let counted: Vec<u8> = (0..len).map(byte_of).collect();
            assert_eq!(bytes_of(&reader(list)), counted, "{what}");
            let fresh: Vec<u8> = (0..len).map(|i| byte_of(i * 7 + 3)).collect();
            fill_pieces(list, 11, |bytes, at| {
                let from = usize::try_from(at - 11).unwrap();
                bytes.copy_from_slice(&fresh[from..from + bytes.len()]);
                Ok::<(), ()>(())
            })
            .unwrap();
            assert_eq!(bytes_of(&reader(list)), fresh, "{what}");
        });
    }

    #[test]
    fn a_part_has_the_bytes_that_were_asked_for() {
        with_lists(|list, what| {
            let all = bytes_of(&reader(list));
            let len = all.len().min(40);
            for from in 0..=len {
                for to in from..=len {
                    let want = &all[from..to];
                    let (from, count) = (from as u64, (to - from) as u64);
                    with_part(&reader(list), from, count, |parts| {
                        assert_eq!(bytes_of(parts), want, "{what} {from}+{count}");
                    });
                    with_part_mut(list, from, count, |parts| {
                        assert_eq!(bytes_of(&reader(parts)), want, "{what} {from}+{count}");
                    });
                }
            }
        });
    }

    #[test]
    fn zeros_reach_every_byte() {
        with_lists(|list, what| {
            list.iter_mut().for_each(PieceMut::fill_zeroes);
            assert!(bytes_of(&reader(list)).iter().all(|&byte| byte == 0), "{what}");
        });
    }

    #[test]
    fn no_more_than_a_buffer_is_asked_for_at_a_time_and_an_error_ends_it() {
        let mut memory = vec![0; 300_000];
        let mut list = [PieceMut::Shared(SharedSlice::from(&mut memory[..]))];
        let mut asked = Vec::new();
        let result = fill_pieces(&mut list, 0, |bytes, at| {
            asked.push((bytes.len(), at));
            if asked.len() == 3 { Err("third") } else { Ok(()) }
        });
        assert_eq!(result, Err("third"));
        assert_eq!(asked, [(65536, 0), (65536, 65536), (65536, 131_072)]);
    }
}
