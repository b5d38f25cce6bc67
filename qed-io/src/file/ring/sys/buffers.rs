//! Memory that a ring may be given: what a kind of it has to promise, and the kinds that there are.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use super::AlignedBuf;
use crate::pieces::SharedSlice;

/// Memory that stays where it is while its owner lives, wherever the owner is moved: an
/// [`AlignedBuf`], or memory of the caller such as parts of a guest's ([`LentMemory`]).
///
/// # Safety
/// Until the value is dropped, and for ever if it is forgotten,
/// - [`StableBuf::each_slice`] gives the same bytes in the same places, and [`StableBuf::len`] says how
///   many they are;
/// - these bytes are valid for reads and writes by the kernel and by this program;
/// - no reference to any of them is used by anybody else. Memory that a guest, or whoever else has it
///   mapped, may read or write meanwhile has no [`StableBuf::exclusive`]: what they then see, or what
///   is then read, may be old and new bytes in any mixture.
#[expect(unsafe_code, reason = "the kernel is handed the addresses that an implementation tells")]
pub unsafe trait StableBuf: Debug + 'static {
    /// Shows `visit` where the bytes of a part lie, in their order, as few slices as there are.
    ///
    /// # Panics
    /// If the part lies outside.
    fn each_slice(&mut self, part: Range<usize>, visit: &mut dyn FnMut(SharedSlice<'_>));

    /// How many bytes there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if nobody else can change them.
    fn exclusive(&mut self) -> Option<&mut [u8]> {
        None
    }

    /// Lets `read` fill a part of it.
    ///
    /// # Errors
    /// Those of `read`; the part is unspecified then.
    ///
    /// # Panics
    /// If the part lies outside.
    fn fill_part<E>(
        &mut self,
        part: Range<usize>,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(bytes) = self.exclusive() {
            return read(&mut bytes[part]);
        }
        let mut bytes = vec![0; part.len()];
        read(&mut bytes)?;
        let mut rest = &bytes[..];
        self.each_slice(part, &mut |slice| {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        });
        Ok(())
    }

    /// Shows `write` a part of it as it is now.
    ///
    /// # Panics
    /// If the part lies outside.
    fn read_part<T>(&mut self, part: Range<usize>, write: impl FnOnce(&[u8]) -> T) -> T {
        if let Some(bytes) = self.exclusive() {
            return write(&bytes[part]);
        }
        let mut bytes = vec![0; part.len()];
        let mut rest = &mut bytes[..];
        self.each_slice(part, &mut |slice| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        });
        write(&bytes)
    }
}

// SAFETY: The bytes lie on the heap, where the buffer never reallocates them and frees them when it is
// dropped; nobody else has them.
#[expect(unsafe_code, reason = "as the trait asks")]
unsafe impl StableBuf for AlignedBuf {
    fn each_slice(&mut self, part: Range<usize>, visit: &mut dyn FnMut(SharedSlice<'_>)) {
        visit(SharedSlice::from(&mut self[part]));
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        Some(self)
    }
}

/// Pieces of memory that others may change, one after the other, with what keeps them mapped: those of a
/// request of a guest.
#[derive(Debug)]
pub struct LentMemory {
    slices: Vec<SharedSlice<'static>>,
    len: usize,
    #[expect(dead_code, reason = "held while the bytes are used")]
    owner: Arc<dyn Any + Send + Sync>,
}

impl LentMemory {
    /// The bytes at these addresses, each with how many there are.
    ///
    /// # Safety
    /// While a clone of `owner` lives, the bytes are such that [`SharedSlice::new`] may be called for
    /// them.
    #[must_use]
    #[expect(unsafe_code, reason = "the compiler knows nothing of the memory")]
    pub unsafe fn new(
        addresses: impl IntoIterator<Item = (*mut u8, usize)>,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        let slice = |(address, len)| {
            // SAFETY: as the caller promises, the bytes are valid while `owner` lives, which the value
            // holds that the slice is put in. That shows it for as long as itself is borrowed only.
            unsafe { SharedSlice::new(address, len) }
        };
        let slices: Vec<_> = addresses.into_iter().map(slice).collect();
        Self { owner, ..Self::from(slices) }
    }
}

/// Memory that is there for ever needs nobody to keep it.
impl From<Vec<SharedSlice<'static>>> for LentMemory {
    fn from(slices: Vec<SharedSlice<'static>>) -> Self {
        let len = slices.iter().map(SharedSlice::len).sum();
        Self { slices, len, owner: Arc::new(()) }
    }
}

// SAFETY: The slices are never changed, and valid while the owner lives, which is dropped with the value:
// `new` was promised so. Nobody uses a reference to their bytes.
#[expect(unsafe_code, reason = "as the trait asks")]
unsafe impl StableBuf for LentMemory {
    fn each_slice(&mut self, part: Range<usize>, visit: &mut dyn FnMut(SharedSlice<'_>)) {
        assert!(part.start <= part.end && part.end <= self.len, "a part of the memory");
        let mut start = 0;
        for slice in &self.slices {
            let within = |at: usize| at.saturating_sub(start).min(slice.len());
            let inside = within(part.start)..within(part.end);
            if !inside.is_empty() {
                visit(slice.part(inside));
            }
            start += slice.len();
        }
    }

    fn len(&self) -> usize {
        self.len
    }
}

/// A buffer that behaves as memory that others use as well, for tests; in two slices if it is longer than
/// a sector.
#[cfg(feature = "test-utils")]
#[derive(Debug)]
pub struct SharedBuf(pub AlignedBuf);

// SAFETY: It is the buffer, which is not looked at while the ring has it.
#[cfg(feature = "test-utils")]
#[expect(unsafe_code, reason = "as the trait asks")]
unsafe impl StableBuf for SharedBuf {
    fn each_slice(&mut self, part: Range<usize>, visit: &mut dyn FnMut(SharedSlice<'_>)) {
        const SECTOR: usize = 4096;
        let cut = (part.start + 1).next_multiple_of(SECTOR).min(part.end);
        for part in [part.start..cut, cut..part.end] {
            if !part.is_empty() {
                self.0.each_slice(part, visit);
            }
        }
    }

    fn len(&self) -> usize {
        StableBuf::len(&self.0)
    }
}

/// Memory of the caller, or of what goes between the caller and the ring.
#[derive(Debug)]
pub enum Memory<B> {
    /// The caller's.
    Given(B),
    /// Made for a transfer.
    Own(AlignedBuf),
}

// SAFETY: Either is so, and a value does not turn from one into the other while the ring has it.
#[expect(unsafe_code, reason = "as the trait asks")]
unsafe impl<B: StableBuf> StableBuf for Memory<B> {
    fn each_slice(&mut self, part: Range<usize>, visit: &mut dyn FnMut(SharedSlice<'_>)) {
        match self {
            Self::Given(buffer) => buffer.each_slice(part, visit),
            Self::Own(buffer) => buffer.each_slice(part, visit),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Given(buffer) => buffer.len(),
            Self::Own(buffer) => StableBuf::len(buffer),
        }
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Given(buffer) => buffer.exclusive(),
            Self::Own(buffer) => buffer.exclusive(),
        }
    }
}
