//! A storage around another one, without a line for each call that it only passes on.

/// Writes the methods of [`Storage`](crate::Storage) that are asked of the storage in a field as they
/// are. `Storage` is in scope.
///
/// ```
/// use std::io;
/// use qed_io::{MemoryStorage, Storage};
///
/// /// Forgets what is written.
/// #[derive(Debug, Default)]
/// struct Forgetful(MemoryStorage);
///
/// impl Storage for Forgetful {
///     fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
///         Ok(())
///     }
///
///     qed_io::forward_storage!(0: len read_at set_len flush write_zeroes punch_hole run_at growth lock);
/// }
///
/// let storage = Forgetful::default();
/// storage.write_at(b"x", 0).unwrap();
/// assert!(storage.is_empty().unwrap());
/// ```
#[macro_export]
macro_rules! forward_storage {
    ($inner:tt: $($call:ident)+) => { $($crate::forward_storage!(@$call $inner);)+ };
    (@len $inner:tt) => {
        fn len(&self) -> ::std::io::Result<u64> {
            self.$inner.len()
        }
    };
    (@read_at $inner:tt) => {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> ::std::io::Result<()> {
            self.$inner.read_at(buf, offset)
        }
    };
    (@write_at $inner:tt) => {
        fn write_at(&self, buf: &[u8], offset: u64) -> ::std::io::Result<()> {
            self.$inner.write_at(buf, offset)
        }
    };
    (@set_len $inner:tt) => {
        fn set_len(&self, len: u64) -> ::std::io::Result<()> {
            self.$inner.set_len(len)
        }
    };
    (@flush $inner:tt) => {
        fn flush(&self) -> ::std::io::Result<()> {
            self.$inner.flush()
        }
    };
    (@write_zeroes $inner:tt) => {
        fn write_zeroes(&self, range: ::std::ops::Range<u64>) -> ::std::io::Result<()> {
            self.$inner.write_zeroes(range)
        }
    };
    (@punch_hole $inner:tt) => {
        fn punch_hole(&self, range: ::std::ops::Range<u64>) -> ::std::io::Result<bool> {
            self.$inner.punch_hole(range)
        }
    };
    (@discard $inner:tt) => {
        fn discard(&self, range: ::std::ops::Range<u64>) -> ::std::io::Result<bool> {
            self.$inner.discard(range)
        }
    };
    (@run_at $inner:tt) => {
        fn run_at(&self, at: u64) -> ::std::io::Result<$crate::StorageRun> {
            self.$inner.run_at(at)
        }
    };
    (@growth $inner:tt) => {
        fn growth(&self) -> $crate::Growth {
            self.$inner.growth()
        }
    };
    (@lock $inner:tt) => {
        fn lock(&self, lock: $crate::ImageLock) -> ::std::result::Result<(), $crate::LockError> {
            self.$inner.lock(lock)
        }
    };
}
