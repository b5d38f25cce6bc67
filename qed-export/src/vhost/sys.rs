//! Where the address of guest memory leaves the type that guards it, so that the kernel can be told of it.

use qed_io::SharedSlice;
use vm_memory::volatile_memory::VolatileSlice;

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
