//! The bytes of one open file that stand for its image lock: taking, testing, giving back.
//!
//! Owns the lock system calls and the record of what is held; knows paths and I/O of no file.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::{Clash, ImageLock, LockError, Permission, PermissionSet};

/// First of the bytes that say "this permission is used".
const USED: libc::off_t = 100;
/// First of the bytes that say "this permission is not shared".
const NOT_SHARED: libc::off_t = 200;

/// The byte that says "this file is being made"; QEMU uses none up here.
const CLAIM: libc::off_t = 300;

/// The right to make a file, for the moment in which it is found, locked and emptied: of any number
/// who claim it at one time exactly one gets it, where of those who take image locks at one time
/// each may see another and nobody get one.
#[derive(Debug)]
pub(crate) struct Claim(OwnedFd);

impl Claim {
    pub(crate) fn take(file: impl AsFd) -> Result<Self, LockError> {
        let fd = file.as_fd().try_clone_to_owned().map_err(LockError::Io)?;
        set(&fd, CLAIM, libc::F_WRLCK).map_err(|errno| match errno {
            Errno::EAGAIN | Errno::EACCES => {
                LockError::Held { permission: Permission::Write, clash: Clash::NotShared }
            }
            other => failed(other),
        })?;
        Ok(Self(fd))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The file itself lives on in another descriptor, and the lock with it. One that stays keeps
        // others from making the file until it is closed.
        let _ = set(&self.0, CLAIM, libc::F_UNLCK);
    }
}

/// What one open file description holds.
#[derive(Debug)]
pub(crate) struct ByteLocks {
    held: ImageLock,
}

impl ByteLocks {
    pub(crate) const fn new() -> Self {
        Self { held: ImageLock::NONE }
    }

    /// Replaces what is held by `wanted`; on an error the old lock stays.
    ///
    /// New bytes are taken before the opposite ones are tested, so that of two takers at one time
    /// at least one sees the other; old bytes are given back last, so that no moment is unguarded.
    pub(crate) fn replace(&mut self, fd: impl AsFd, wanted: ImageLock) -> Result<(), LockError> {
        let added = difference(wanted, self.held);
        if let Err(error) = take(&fd, added).and_then(|()| test(&fd, added)) {
            // The failure to report is the first one; a byte that stays locked only makes
            // others wait, never lets them in.
            let _ = release(&fd, added);
            return Err(error);
        }
        let dropped = difference(self.held, wanted);
        self.held = wanted;
        release(&fd, dropped)
    }
}

/// Whether the file system has such locks; takes none.
///
/// # Errors
/// [`LockError::Unsupported`] if it has not.
pub(crate) fn probe(fd: impl AsFd) -> Result<(), LockError> {
    let mut question = one_byte(USED, libc::F_WRLCK);
    fcntl(&fd, FcntlArg::F_OFD_GETLK(&mut question)).map(drop).map_err(failed)
}

/// What `a` takes and `b` does not.
fn difference(a: ImageLock, b: ImageLock) -> ImageLock {
    let not_shared = b.shares.without(a.shares);
    ImageLock { uses: a.uses.without(b.uses), shares: PermissionSet::ALL.without(not_shared) }
}

/// The bytes of `lock`, each with the permission it stands for.
fn bytes(lock: ImageLock) -> impl Iterator<Item = (libc::off_t, Permission, Clash)> {
    let used = lock.uses.iter().map(|p| (USED + p as libc::off_t, p, Clash::NotShared));
    let kept = PermissionSet::ALL.without(lock.shares);
    used.chain(kept.iter().map(|p| (NOT_SHARED + p as libc::off_t, p, Clash::InUse)))
}

fn take(fd: impl AsFd, lock: ImageLock) -> Result<(), LockError> {
    for (byte, permission, clash) in bytes(lock) {
        set(&fd, byte, libc::F_RDLCK).map_err(|errno| match errno {
            // Somebody holds a write lock here. QEMU never does; it is a holder all the same.
            Errno::EAGAIN | Errno::EACCES => LockError::Held { permission, clash },
            other => failed(other),
        })?;
    }
    Ok(())
}

fn test(fd: impl AsFd, lock: ImageLock) -> Result<(), LockError> {
    for (byte, permission, clash) in bytes(lock) {
        let opposite = match clash {
            Clash::NotShared => byte - USED + NOT_SHARED,
            Clash::InUse => byte - NOT_SHARED + USED,
        };
        // A write lock would conflict with any lock of others; it is asked about, not taken.
        let mut question = one_byte(opposite, libc::F_WRLCK);
        fcntl(&fd, FcntlArg::F_OFD_GETLK(&mut question)).map_err(failed)?;
        if i32::from(question.l_type) != libc::F_UNLCK {
            return Err(LockError::Held { permission, clash });
        }
    }
    Ok(())
}

fn release(fd: impl AsFd, lock: ImageLock) -> Result<(), LockError> {
    let mut result = Ok(());
    for (byte, ..) in bytes(lock) {
        if let Err(errno) = set(&fd, byte, libc::F_UNLCK) {
            result = Err(failed(errno));
        }
    }
    result
}

fn set(fd: impl AsFd, byte: libc::off_t, kind: libc::c_int) -> Result<(), Errno> {
    fcntl(fd, FcntlArg::F_OFD_SETLK(&one_byte(byte, kind))).map(drop)
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel's lock constants are 0, 1 and 2")]
fn one_byte(byte: libc::off_t, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn failed(errno: Errno) -> LockError {
    let error = io::Error::from(errno);
    match errno {
        Errno::EINVAL | Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP => {
            LockError::Unsupported(error)
        }
        _ => LockError::Io(error),
    }
}
