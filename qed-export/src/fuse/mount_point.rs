//! The kernel's mount: made for a device that the kernel sends its messages by, and taken away again,
//! that one and no other. Knows no disk.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use thiserror::Error;

/// What the kernel sends its messages by.
pub(super) const DEVICE: &str = "/dev/fuse";
/// What a user without the right to mount does it by.
const HELPER: &str = "fusermount3";
/// What the list of mounts says: no name of an image, which may have any byte in it.
const SOURCE: &str = "qed";
const TYPE: &str = "fuse.qed";

/// Why a disk could not be mounted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// The kernel has no FUSE, or it cannot be reached from here.
    #[error(
        "there is no FUSE here: {DEVICE} cannot be opened (the kernel module is called fuse; a container \
         has to be given the device)"
    )]
    NoFuse(#[source] io::Error),
    /// A server that has died left its mount behind.
    #[error(
        "'{}' is a mount whose server has died: take it away first, by umount -l or fusermount3 -uz",
        path.display()
    )]
    Dead {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount point is no place for a file.
    #[error("'{}' is neither a file nor a folder", path.display())]
    Place {
        /// The mount point.
        path: PathBuf,
    },
    /// Only root may mount, or a user with the helper.
    #[error("mounting needs root, or {HELPER} (Debian package fuse3)")]
    NoRights(#[source] io::Error),
    /// The helper refused.
    #[error("{HELPER} refused: {said}")]
    Helper {
        /// What it said.
        said: String,
    },
    /// The mount point cannot be looked at, or the system refused.
    #[error("cannot mount on '{}'", path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where something is mounted by us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountPoint {
    path: PathBuf,
    /// The kernel's number of the mount.
    id: u64,
}

/// What became of a mount that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmounted {
    /// Nobody used it.
    Gone,
    /// Nobody finds it any more; it goes when those who have the file open are done.
    InUse,
    /// It was not there any more.
    Before,
}

/// What may be done with what is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    /// Nothing can be changed.
    pub(super) read_only: bool,
    /// Other users may see the file too.
    pub(super) allow_other: bool,
}

/// A place that something can be mounted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: PathBuf,
    mode: u32,
}

impl Place {
    /// Looks whether something can be mounted at `path`.
    pub(super) fn at(path: &Path) -> Result<Self, MountError> {
        let looked = path.canonicalize().and_then(|path| Ok((path.metadata()?, path)));
        let (metadata, found) = looked.map_err(|source| match source.raw_os_error() {
            Some(number) if number == Errno::NOTCONN.raw_os_error() => {
                MountError::Dead { path: path.to_owned() }
            }
            _ => MountError::Refused { path: path.to_owned(), source },
        })?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(MountError::Place { path: found });
        }
        Ok(Self { path: found, mode: metadata.mode() })
    }

    /// Whether it is a file, in whose place another appears.
    pub(super) fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    /// Mounts there; what the kernel sends messages by.
    pub(super) fn mount(self, rights: Rights) -> Result<(MountPoint, OwnedFd), MountError> {
        let device = match self.mount_directly(rights)? {
            Ok(device) => device,
            Err(denied) => mount_by_helper(&self.path, rights, denied)?,
        };
        let id = mount_id(&self.path).map_err(|source| self.refused(source))?;
        Ok((MountPoint { path: self.path, id }, device))
    }

    /// Mounts by itself; the inner error is that it has no right to.
    fn mount_directly(&self, rights: Rights) -> Result<Result<OwnedFd, io::Error>, MountError> {
        let device = match OpenOptions::new().read(true).write(true).open(DEVICE) {
            Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => {
                return Ok(Err(error));
            }
            opened => OwnedFd::from(opened.map_err(MountError::NoFuse)?),
        };
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        let options = format!(
            "fd={},rootmode={:o},user_id={},group_id={},{}",
            device.as_raw_fd(),
            self.mode,
            user.as_raw(),
            group.as_raw(),
            rights.options(),
        );
        let options = CString::new(options).expect("numbers and words");
        let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
        flags.set(MountFlags::RDONLY, rights.read_only);
        match mount(SOURCE, &self.path, TYPE, flags, &*options) {
            Ok(()) => Ok(Ok(device)),
            Err(error @ Errno::PERM) => Ok(Err(error.into())),
            Err(Errno::NODEV) => Err(MountError::NoFuse(Errno::NODEV.into())),
            Err(error) => Err(self.refused(error)),
        }
    }

    fn refused(&self, source: Errno) -> MountError {
        MountError::Refused { path: self.path.clone(), source: source.into() }
    }
}

impl Rights {
    /// What the kernel and the helper understand both.
    const fn options(self) -> &'static str {
        if self.allow_other { "default_permissions,allow_other" } else { "default_permissions" }
    }
}

impl MountPoint {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the mount away, at once if nobody uses it, else so that nobody finds it any more.
    ///
    /// What others have mounted at the same place stays.
    pub(super) fn unmount(&self) -> io::Result<Unmounted> {
        if mount_id(&self.path).ok() != Some(self.id) {
            return Ok(Unmounted::Before);
        }
        let flags = UnmountFlags::NOFOLLOW;
        match unmount(&self.path, flags) {
            Ok(()) => Ok(Unmounted::Gone),
            Err(Errno::BUSY) => {
                unmount(&self.path, flags | UnmountFlags::DETACH)?;
                Ok(Unmounted::InUse)
            }
            Err(Errno::PERM) => unmount_by_helper(&self.path),
            Err(error) => Err(error.into()),
        }
    }
}

/// The number of the mount that `path` is on; asks no server for it.
fn mount_id(path: &Path) -> Result<u64, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    Ok(statx(CWD, path, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Mounts by the helper, which may what its caller may not, and sends what the kernel sends messages by.
fn mount_by_helper(path: &Path, rights: Rights, denied: io::Error) -> Result<OwnedFd, MountError> {
    let refused = |source| MountError::Refused { path: path.to_owned(), source };
    let (ours, its) = UnixStream::pair().map_err(refused)?;
    let helper = match start_helper(path, rights, its) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::NoRights(denied));
        }
        started => started.map_err(refused)?,
    };
    let received = receive(&ours);
    let said = helper.wait_with_output().map_err(refused)?.stderr;
    received.map_err(refused)?.ok_or_else(|| {
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        MountError::Helper { said }
    })
}

/// Starts the helper with its end of a socket, which nobody else has once this returns: if it ends without
/// sending anything, that is seen.
fn start_helper(path: &Path, rights: Rights, socket: UnixStream) -> io::Result<Child> {
    let mut options = format!("{},fsname={SOURCE},subtype=qed", rights.options());
    if rights.read_only {
        options += ",ro";
    }
    let mut helper = Command::new(HELPER);
    helper.args(["-o", &options, "--"]).arg(path);
    // It takes the number of a socket; that of its standard input needs no handing over.
    helper.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(socket));
    helper.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// The descriptor that a socket brings; none if its other end is closed without one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut messages = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut bytes, &mut messages, RecvFlags::CMSG_CLOEXEC)
    })?;
    Ok(messages.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

fn unmount_by_helper(path: &Path) -> io::Result<Unmounted> {
    for (how, came_of_it) in [("-uq", Unmounted::Gone), ("-uqz", Unmounted::InUse)] {
        if Command::new(HELPER).args([how, "--"]).arg(path).output()?.status.success() {
            return Ok(came_of_it);
        }
    }
    Err(io::Error::other("fusermount3 refused"))
}
