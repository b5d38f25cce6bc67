//! What tests ask of images that they open on this thread: that the walls hold is shown by owners that
//! nobody else knows of.

use std::cell::Cell;

thread_local! {
    static TOY_CIPHER: Cell<bool> = const { Cell::new(false) };
    static USED_CLUSTERS: Cell<u64> = const { Cell::new(0) };
}

/// Images that `act` opens store guest bytes under a toy cipher.
pub fn with_toy_cipher<R>(act: impl FnOnce() -> R) -> R {
    with(&TOY_CIPHER, true, act)
}

/// Images that `act` opens for writing hand out so many clusters first that lie low in the file and are
/// full of other bytes, as those that a discard would have freed.
pub fn with_used_clusters<R>(count: u64, act: impl FnOnce() -> R) -> R {
    with(&USED_CLUSTERS, count, act)
}

pub(crate) fn has_toy_cipher() -> bool {
    TOY_CIPHER.get()
}

pub(crate) fn used_clusters() -> u64 {
    USED_CLUSTERS.get()
}

fn with<T: Copy, R>(
    cell: &'static std::thread::LocalKey<Cell<T>>,
    value: T,
    act: impl FnOnce() -> R,
) -> R {
    let before = cell.replace(value);
    let result = act();
    cell.set(before);
    result
}
