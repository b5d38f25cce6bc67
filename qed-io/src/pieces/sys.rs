//! Memory that others may change at any time, without a reference to it.
//!
//! Owns the address, the promise that it is valid, and the copies from and to it. Knows nothing of who
//! the others are.

use std::marker::PhantomData;
use std::ops::Range;

/// Bytes that another process, or a guest, may read and change at any time: so no `&[u8]` and no
/// `&mut [u8]` of them may exist. The kernel can be told of them, and they can be copied.
///
/// What is copied from them may be old and new bytes in any mixture.
#[derive(Debug, Clone, Copy)]
pub struct SharedSlice<'a> {
    address: *mut u8,
    len: usize,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> SharedSlice<'a> {
    /// The `len` bytes from `address` on.
    ///
    /// # Safety
    /// While `'a` lasts,
    /// - the bytes are valid for reads and writes by this program and by the kernel;
    /// - this program uses no reference to any of them. Others, and other threads by values like this
    ///   one, may read and write them.
    #[must_use]
    #[expect(unsafe_code, reason = "the compiler knows nothing of the memory")]
    pub const unsafe fn new(address: *mut u8, len: usize) -> Self {
        Self { address, len, memory: PhantomData }
    }

    /// Where they begin; for the kernel, or for a copy.
    #[must_use]
    pub const fn address(&self) -> *mut u8 {
        self.address
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some of them.
    ///
    /// # Panics
    /// If the range reaches outside.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "a part of the memory");
        let address = self.address.wrapping_add(range.start);
        Self { address, len: range.end - range.start, memory: PhantomData }
    }

    /// Copies all of them, as they are now, to `buf`.
    ///
    /// # Panics
    /// If it has another length.
    #[expect(unsafe_code, reason = "reads memory that others may change")]
    pub fn copy_to(self, buf: &mut [u8]) {
        assert_eq!(buf.len(), self.len, "a buffer of the same length");
        let (head, words) = self.split();
        for (i, byte) in buf[..head].iter_mut().enumerate() {
            // SAFETY: byte `i` lies below `head`, which is at most `len`: `new` promises that it is valid
            // for reads. The read is volatile, so that nothing is concluded from what it gives.
            *byte = unsafe { self.address.wrapping_add(i).read_volatile() };
        }
        let (middle, tail) = buf[head..].as_chunks_mut::<WORD>();
        debug_assert_eq!(middle.len(), words, "as many words as fit");
        for (i, word) in middle.iter_mut().enumerate() {
            let from = self.address.wrapping_add(head + i * WORD).cast::<u64>();
            // SAFETY: the eight bytes from `head + 8 * i` on lie inside, since `buf` has as many and they
            // are one of its chunks; valid for reads as above. The address is a multiple of eight:
            // `head` is the distance to one (`split`), and there are words only if it was reached.
            *word = unsafe { from.read_volatile() }.to_ne_bytes();
        }
        let done = head + words * WORD;
        for (i, byte) in tail.iter_mut().enumerate() {
            // SAFETY: as for the bytes before the words: `done + i` is below `len`.
            *byte = unsafe { self.address.wrapping_add(done + i).read_volatile() };
        }
    }

    /// Makes them all those of `buf`.
    ///
    /// # Panics
    /// If it has another length.
    pub fn copy_from(self, buf: &[u8]) {
        assert_eq!(buf.len(), self.len, "a buffer of the same length");
        let (head, _) = self.split();
        let (middle, tail) = buf[head..].as_chunks::<WORD>();
        self.put(buf[..head].iter().copied(), middle.iter().copied(), tail.iter().copied());
    }

    /// Makes them all `byte`.
    pub fn fill(self, byte: u8) {
        let (head, words) = self.split();
        let tail = self.len - head - words * WORD;
        let of = |count| std::iter::repeat_n(byte, count);
        self.put(of(head), std::iter::repeat_n([byte; WORD], words), of(tail));
    }

    /// Writes bytes, words and bytes, one after the other, as far as there is memory for them.
    #[expect(unsafe_code, reason = "writes memory that others may use")]
    fn put(
        self,
        head: impl Iterator<Item = u8>,
        middle: impl Iterator<Item = [u8; WORD]>,
        tail: impl Iterator<Item = u8>,
    ) {
        let (head_len, words) = self.split();
        for (i, byte) in head.take(head_len).enumerate() {
            // SAFETY: byte `i` is below `head_len`, which is at most `len`: valid for writes, as `new`
            // promises.
            unsafe { self.address.wrapping_add(i).write_volatile(byte) };
        }
        for (i, word) in middle.take(words).enumerate() {
            let to = self.address.wrapping_add(head_len + i * WORD).cast::<u64>();
            // SAFETY: word `i` is below `words`, so that its eight bytes lie inside; its address is a
            // multiple of eight (`split`). Valid for writes as above.
            unsafe { to.write_volatile(u64::from_ne_bytes(word)) };
        }
        let done = head_len + words * WORD;
        for (i, byte) in tail.take(self.len - done).enumerate() {
            // SAFETY: byte `done + i` is below `len`. Valid for writes as above.
            unsafe { self.address.wrapping_add(done + i).write_volatile(byte) };
        }
    }

    /// How many bytes come before the first word that lies as words do, and how many words follow.
    fn split(self) -> (usize, usize) {
        let head = self.address.align_offset(WORD).min(self.len);
        (head, (self.len - head) / WORD)
    }
}

/// What the processor moves at a time.
const WORD: usize = size_of::<u64>();

/// Memory of this program, used as if others had it too.
impl<'a> From<&'a mut [u8]> for SharedSlice<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        // The slice is lent for as long as this lives, which no other thread can be given: the address
        // is valid, and nobody else uses it.
        Self { address: bytes.as_mut_ptr(), len: bytes.len(), memory: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_move_every_byte_and_no_other_at_each_alignment() {
        let counted: Vec<u8> = (0..200).collect();
        for start in 0..9 {
            for len in 0..40 {
                let mut memory = counted[..64].to_vec();
                let mut out = vec![0xff; len];
                SharedSlice::from(&mut memory[..]).part(start..start + len).copy_to(&mut out);
                assert_eq!(out, counted[start..start + len]);

                let bytes = &counted[100..100 + len];
                let mut want = memory.clone();
                want[start..start + len].copy_from_slice(bytes);
                SharedSlice::from(&mut memory[..]).part(start..start + len).copy_from(bytes);
                assert_eq!(memory, want);

                want[start..start + len].fill(7);
                SharedSlice::from(&mut memory[..]).part(start..start + len).fill(7);
                assert_eq!(memory, want);
            }
        }
    }
}
