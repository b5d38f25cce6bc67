//! QEMU-compatible image locks: what a lock says. The file storage takes them; others need none.
//!
//! QEMU guards an image with open-file-description locks on single bytes: byte 100+p is read-locked
//! by every holder that uses permission p, byte 200+p by every holder that does not let others use
//! it. A taker locks its own bytes first and then tests the opposite ones.

use std::io;

use thiserror::Error;

/// One way to use an image, in QEMU's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Permission {
    /// Reading guest data that others must not change under the reader.
    ConsistentRead = 0,
    /// Writing guest data.
    Write = 1,
    /// Writing without changing what the guest reads.
    WriteUnchanged = 2,
    /// Changing the virtual size.
    Resize = 3,
}

/// A set of [`Permission`]s, bit p for permission p.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionSet(u8);

impl PermissionSet {
    /// No permission.
    pub const NONE: Self = Self(0);
    /// Every permission there is.
    pub const ALL: Self = Self(0b1111);

    /// The set of the permissions in `list`.
    #[must_use]
    pub const fn of(list: &[Permission]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < list.len() {
            bits |= 1 << list[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether `permission` is in the set.
    #[must_use]
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }
}

/// What a program does with an image and what it lets others do at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLock {
    /// What the holder uses.
    pub uses: PermissionSet,
    /// What the holder lets others use.
    pub shares: PermissionSet,
}

impl ImageLock {
    /// Reads while nobody writes, as `qemu-img` without `-U`.
    pub const READ: Self = Self {
        uses: PermissionSet::of(&[Permission::ConsistentRead]),
        shares: PermissionSet::of(&[Permission::ConsistentRead, Permission::WriteUnchanged]),
    };
    /// Reads and writes alone; others may only read what never changes.
    pub const WRITE: Self = Self {
        uses: PermissionSet::of(&[
            Permission::ConsistentRead,
            Permission::Write,
            Permission::Resize,
        ]),
        shares: PermissionSet::NONE,
    };
}

/// Why an image lock could not be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds the image in a way that does not fit; the permission that clashed.
    #[error("failed to get \"{}\" lock: is another process using the image?", permission_name(*.permission))]
    Held {
        /// The permission that clashed.
        permission: Permission,
    },
    /// The file system or kernel has no open-file-description locks.
    #[error("the image cannot be locked")]
    Unsupported(#[source] io::Error),
    /// The lock call failed.
    #[error("locking the image failed")]
    Io(#[source] io::Error),
}

fn permission_name(permission: Permission) -> &'static str {
    match permission {
        Permission::ConsistentRead => "consistent read",
        Permission::Write => "write",
        Permission::WriteUnchanged => "write unchanged",
        Permission::Resize => "resize",
    }
}
