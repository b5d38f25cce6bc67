//! The messages of the kernel, each answered by what the file says. Knows no mount and no thread.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::attributes::{Attributes, NewAttributes, PREFERRED_BYTES};
use super::disk_file::{DiskFile, Fallocate, MAX_REQUEST_BYTES, RangeChange, Seek};
use super::errno::FileError;
use crate::device::{DeviceError, Durability, chain};
use crate::server::{Counters, Export, RequestKind, contained};

/// The name of the file in its folder.
pub(super) const FILE_NAME: &str = "disk";

/// The kernel's number of what is mounted.
const ROOT: INodeNo = INodeNo::ROOT;
/// The number of the file in its folder.
const IN_FOLDER: INodeNo = INodeNo(2);
/// How long the kernel need not ask again.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Requests without a thread that waits for them, as those of `io_uring` and `libaio`, at a time.
const MAX_BACKGROUND: u16 = 128;

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
const O_DSYNC: i32 = 0o10000;

/// What the kernel reads and writes by way of.
#[derive(Debug)]
pub(super) struct DiskFilesystem {
    pub(super) file: Arc<DiskFile>,
    pub(super) export: Arc<Export>,
    pub(super) counters: Arc<Counters>,
    pub(super) attributes: Attributes,
    /// What is mounted is the file itself, in the place of another.
    pub(super) is_file: bool,
    /// The kernel keeps no pages of the file.
    pub(super) is_direct: bool,
}

thread_local! {
    /// What a thread reads into: made once, and it never holds more than one request may have.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl DiskFilesystem {
    /// The number of the file.
    pub(super) const fn inode(is_file: bool) -> INodeNo {
        if is_file { ROOT } else { IN_FOLDER }
    }

    fn is_disk(&self, inode: INodeNo) -> bool {
        inode == Self::inode(self.is_file)
    }

    fn attributes_of(&self, inode: INodeNo) -> Result<FileAttr, Errno> {
        let disk = self.file.disk();
        let attributes = &self.attributes;
        match inode {
            _ if self.is_disk(inode) => {
                contained(|| attributes.of_file(inode, disk)).map_err(|_| Errno::EIO)
            }
            ROOT => contained(|| attributes.of_folder(inode, disk)).map_err(|_| Errno::EIO),
            _ => Err(Errno::ENOENT),
        }
    }

    /// The attributes may be remembered where only the owner of the program that serves can change them.
    fn remembered(&self) -> Duration {
        let how = self.file.options();
        if how.is_growable || how.is_shared { Duration::ZERO } else { REMEMBERED }
    }

    /// Does what is asked of the file that is the disk, counts it, and logs what the disk says.
    fn act<T>(
        &self,
        inode: INodeNo,
        kind: RequestKind,
        len: u64,
        work: impl FnOnce(&DiskFile) -> Result<T, FileError>,
    ) -> Result<T, Errno> {
        let done = if self.is_disk(inode) {
            contained(|| work(&self.file))
                .unwrap_or_else(|panicked| Err(DeviceError::Failed(panicked.into()).into()))
        } else {
            Err(if inode == ROOT { Errno::EISDIR } else { Errno::ENOENT }.into())
        };
        self.counters.answered(kind, len, done.is_ok());
        done.map_err(|error| {
            if let FileError::Disk(failed @ (DeviceError::Failed(_) | DeviceError::NoSpace(_))) =
                &error
                && self.export.may_log()
            {
                tracing::warn!(export = %self.export.shown_name(), "{}", chain(failed));
            }
            error.errno()
        })
    }

    fn act_and_answer(
        &self,
        inode: INodeNo,
        kind: RequestKind,
        len: u64,
        reply: ReplyEmpty,
        work: impl FnOnce(&DiskFile) -> Result<(), FileError>,
    ) {
        match self.act(inode, kind, len, work) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }
}

impl Filesystem for DiskFilesystem {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each is what the kernel has if that is less.
        let _ = config.set_max_write(MAX_REQUEST_BYTES);
        if let Err(most) = config.set_max_readahead(MAX_REQUEST_BYTES) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        // Without it asynchronous requests wait for each other.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        if self.is_direct {
            let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.is_file || parent != ROOT || name != FILE_NAME {
            return reply.error(Errno::ENOENT);
        }
        match self.attributes_of(IN_FOLDER) {
            Ok(attributes) => reply.entry(&self.remembered(), &attributes, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes_of(inode) {
            Ok(attributes) => reply.attr(&self.remembered(), &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if !self.is_disk(inode) {
            return reply.error(Errno::EPERM);
        }
        if let Some(size) = size
            && let Err(errno) = self.act(inode, RequestKind::Other, 0, |file| file.truncate(size))
        {
            return reply.error(errno);
        }
        let modified = modified.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        self.attributes.change(NewAttributes { mode, user, group, modified });
        self.getattr(request, inode, handle, reply);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if !self.is_disk(inode) {
            return reply.error(Errno::EISDIR);
        }
        if self.file.disk().is_read_only() && flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        let flags = if self.is_direct {
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
        } else {
            // Nobody else changes the disk.
            FopenFlags::FOPEN_KEEP_CACHE
        };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        at: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // The kernel never asks for more than it was told; a shorter answer would be the end of the file.
        if len > MAX_REQUEST_BYTES {
            return reply.error(Errno::EINVAL);
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(buffer.len().max(len as usize), 0);
            let buffer = &mut buffer[..len as usize];
            let read = self.act(inode, RequestKind::Read, len.into(), |file| file.read(buffer, at));
            match read {
                Ok(len) => reply.data(&buffer[..len]),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_durable = flags.0 & O_DSYNC != 0;
        let durability = if is_durable { Durability::AtReturn } else { Durability::AfterFlush };
        let len = data.len() as u64;
        let written =
            self.act(inode, RequestKind::Write, len, |file| file.write(data, at, durability));
        match written {
            Ok(len) => {
                self.attributes.touch();
                reply.written(len);
            }
            Err(errno) => reply.error(errno),
        }
    }

    /// A file is closed, which makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.act_and_answer(inode, RequestKind::Flush, 0, reply, DiskFile::sync);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        at: u64,
        len: u64,
        flags: i32,
        reply: ReplyEmpty,
    ) {
        let how = match Fallocate::of_flags(flags) {
            Ok(how) => how,
            Err(error) => return reply.error(error.errno()),
        };
        let kind = match how.change {
            RangeChange::PunchHole => RequestKind::Trim,
            RangeChange::Zero => RequestKind::WriteZeroes,
            RangeChange::Allocate => RequestKind::Other,
        };
        self.act_and_answer(inode, kind, len, reply, |file| {
            self.attributes.touch();
            file.fallocate(at, len, how)
        });
    }

    fn lseek(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        at: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let found = self.act(inode, RequestKind::BlockStatus, 0, |file| {
            let at = u64::try_from(at).map_err(|_| Errno::ENXIO)?;
            let found = file.seek(at, what)?;
            i64::try_from(found).map_err(|_| Errno::EOVERFLOW.into())
        });
        match found {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if self.is_file || inode != ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let (folder, file) = (FileType::Directory, FileType::RegularFile);
        let entries = [(ROOT, folder, "."), (ROOT, folder, ".."), (IN_FOLDER, file, FILE_NAME)];
        let left = (1..).zip(entries).skip(usize::try_from(offset).unwrap_or(usize::MAX));
        for (next, (inode, kind, name)) in left {
            if reply.add(inode, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let disk = self.file.disk();
        let Ok(allocated) = contained(|| self.attributes.allocated(disk)) else {
            return reply.error(Errno::EIO);
        };
        let blocks = |bytes: u64| bytes.div_ceil(PREFERRED_BYTES.into());
        let (all, used) = (blocks(disk.size()), blocks(allocated));
        let free = all.saturating_sub(used);
        reply.statfs(all, free, free, 1, 0, PREFERRED_BYTES, 255, PREFERRED_BYTES);
    }

    // What a folder with one file that stays refuses; without these the kernel would be told that there
    // is no such call.

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EPERM);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    // The kernel asks no more for what there is not.

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}
