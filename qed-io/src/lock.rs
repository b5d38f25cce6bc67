//! QEMU-compatible image locks: what a lock says and why one is refused.
//!
//! Owns the vocabulary; `byte_locks` does the system calls, and storages that are not files need
//! none. QEMU guards an image with open-file-description locks on single bytes: byte 100+p is
//! read-locked by every holder that uses permission p, byte 200+p by every holder that does not
//! let others use it. A taker locks its own bytes first and then tests the opposite ones.

mod byte_locks;

use std::fmt::{self, Display, Formatter};
use std::io;

use thiserror::Error;

pub(crate) use byte_locks::{ByteLocks, Claim, probe};

/// One way to use an image, in QEMU's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Permission {
    /// Reading guest data that others must not change under the reader.
    ConsistentRead = 0,
    /// Writing guest data.
    Write = 1,
    /// Writing without changing what the guest reads.
    WriteUnchanged = 2,
    /// Changing the length.
    Resize = 3,
}

impl Permission {
    const ALL: [Self; 4] = [Self::ConsistentRead, Self::Write, Self::WriteUnchanged, Self::Resize];
}

/// QEMU's name of the permission, as in its lock messages.
impl Display for Permission {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsistentRead => "consistent read",
            Self::Write => "write",
            Self::WriteUnchanged => "write unchanged",
            Self::Resize => "resize",
        })
    }
}

/// A set of [`Permission`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

    /// The permissions of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The permissions in the set, in QEMU's order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |&permission| self.contains(permission))
    }
}

/// What a program does with an image and what it lets others do at the same time.
///
/// The constants are what QEMU 10.0.2 takes for a QED image. It takes no more than
/// [`READ_SHARED`](Self::READ_SHARED) for a raw file that it reads as a guest's disk, so that
/// such a reader and a writer of the same file coexist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageLock {
    /// What the holder uses.
    pub uses: PermissionSet,
    /// What the holder lets others use.
    pub shares: PermissionSet,
}

impl ImageLock {
    /// Uses nothing and allows everything: takes no byte, and gives back what was held.
    pub const NONE: Self = Self { uses: PermissionSet::NONE, shares: PermissionSet::ALL };
    /// Reads while nobody writes or resizes: `qemu-img` without `-U`.
    pub const READ: Self = Self {
        uses: PermissionSet::of(&[Permission::ConsistentRead]),
        shares: PermissionSet::of(&[Permission::ConsistentRead, Permission::WriteUnchanged]),
    };
    /// Reads whatever others do meanwhile, and may see it half done: `qemu-img -U`.
    pub const READ_SHARED: Self =
        Self { uses: PermissionSet::of(&[Permission::ConsistentRead]), shares: PermissionSet::ALL };
    /// Reads, writes and resizes as the only program that writes or resizes.
    pub const WRITE: Self = Self {
        uses: PermissionSet::of(&[
            Permission::ConsistentRead,
            Permission::Write,
            Permission::Resize,
        ]),
        shares: PermissionSet::of(&[Permission::ConsistentRead, Permission::WriteUnchanged]),
    };
}

/// Which side of a lock another holder stands against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clash {
    /// The permission was asked for, and another holder does not share it.
    NotShared,
    /// The permission was not to be shared, and another holder uses it.
    InUse,
}

/// Why an image lock could not be taken. Whatever was held before is still held.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another holder, in this process or another, uses the image in a way that does not fit.
    #[error("failed to get {}\"{permission}\" lock", shared(*.clash))]
    Held {
        /// The first permission that clashed, in QEMU's order.
        permission: Permission,
        /// Which way round.
        clash: Clash,
    },
    /// The file system or kernel has no open-file-description locks.
    #[error("the file cannot be locked: no open-file-description locks here")]
    Unsupported(#[source] io::Error),
    /// The lock call failed.
    #[error("the lock call failed")]
    Io(#[source] io::Error),
}

/// QEMU says `shared "write"` when its own refusal to share is what fails.
fn shared(clash: Clash) -> &'static str {
    match clash {
        Clash::NotShared => "",
        Clash::InUse => "shared ",
    }
}
