//! Where the address of guest memory leaves the type that guards it, so that the kernel can be told of it.

use std::any::Any;
use std::sync::Arc;

use qed_io::{LentMemory, SharedSlice};
use vm_memory::volatile_memory::VolatileSlice;

use super::memory::{Memory, MemoryError, Piece};

/// The same memory, for calls that move bytes from and to it.
#[expect(unsafe_code, reason = "the compiler does not know what a mapping guards")]
pub(super) fn shared<'m>(slice: &VolatileSlice<'m>) -> SharedSlice<'m> {
    let address = slice.ptr_guard_mut().as_ptr();
    // SAFETY: a `VolatileSlice<'m>` is memory that is valid for reads and writes, by this program and by
    // the kernel, while `'m` lasts: here it is a part of a mapping that is made readable and writable and
    // that `'m` borrows. A file that its owner cuts meanwhile makes the kernel's transfers fail, and ends
    // the process at a copy, which is not unsound. The only references that this program makes to mapped
    // memory are to atomic words, which others may change by their type.
    unsafe { SharedSlice::new(address, slice.len()) }
}

/// The bytes of pieces, for transfers that go on when nobody holds `memory` any more.
#[expect(unsafe_code, reason = "the compiler does not know what keeps a mapping")]
pub(super) fn lent(memory: &Arc<Memory>, pieces: &[Piece]) -> Result<LentMemory, MemoryError> {
    let address = |piece: &Piece| {
        let slice = memory.slice(*piece)?;
        Ok((slice.ptr_guard_mut().as_ptr(), slice.len()))
    };
    let addresses = pieces.iter().map(address).collect::<Result<Vec<_>, MemoryError>>()?;
    let owner: Arc<dyn Any + Send + Sync> = Arc::<Memory>::clone(memory);
    // SAFETY: Each of the addresses is that of a `VolatileSlice` of a region that `memory` has. The value
    // behind the `Arc` cannot be changed, as nothing in it can through a shared reference, so while a clone
    // of the owner lives it has the same regions, and a region is mapped as long as it exists. What
    // `shared` says of a slice is then true of these bytes.
    Ok(unsafe { LentMemory::new(addresses, owner) })
}
