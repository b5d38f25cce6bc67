//! A disk with a cache, as a file of a file system in user space: what is written counts once it is
//! flushed, and the power can be cut.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyWrite, Request, WriteFlags,
};
use qed_fuzz::Random;

use crate::mounts::is_skipped;

/// Name of the one file.
pub(crate) const FILE: &str = "disk";

const SECTOR: usize = 512;
const DISK: INodeNo = INodeNo(2);
const FOREVER: Duration = Duration::from_secs(3600);

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct PowerDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    durable: Vec<u8>,
    /// Sectors that were written since the last flush.
    cache: BTreeMap<usize, Vec<u8>>,
    flushes: u64,
    has_power: bool,
}

impl PowerDisk {
    /// A disk of zeros.
    pub(crate) fn new(len: usize) -> Self {
        let (durable, cache) = (vec![0; len], BTreeMap::new());
        Self(Arc::new(Mutex::new(State { durable, cache, flushes: 0, has_power: true })))
    }

    /// Mounts the file system; none where that is skipped.
    pub(crate) fn mount(&self, at: &Path) -> Option<BackgroundSession> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("power".to_owned())];
        match fuser::spawn_mount(self.clone(), at, &config) {
            Ok(session) => Some(session),
            Err(_) if is_skipped("needs root, /dev/fuse and loop devices") => None,
            Err(error) => panic!("this test needs root, /dev/fuse and loop devices: {error}"),
        }
    }

    /// Cuts the power: of the sectors in the cache some survive, those that the numbers draw. Every
    /// request from now on fails. How many flushes there were.
    pub(crate) fn cut(&self, random: &mut Random) -> u64 {
        let mut state = self.locked();
        state.has_power = false;
        let survives = random.below(3);
        for (number, sector) in std::mem::take(&mut state.cache) {
            if survives == 1 && random.below(2) == 0 {
                state.durable[number * SECTOR..][..SECTOR].copy_from_slice(&sector);
            }
        }
        state.flushes
    }

    /// What is on it.
    pub(crate) fn durable(&self) -> Vec<u8> {
        self.locked().durable.clone()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_disk = inode == DISK;
        let size = if is_disk { self.locked().durable.len() as u64 } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk { FileType::RegularFile } else { FileType::Directory },
            perm: if is_disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl State {
    fn sector(&mut self, number: usize) -> &mut Vec<u8> {
        let durable = &self.durable;
        self.cache.entry(number).or_insert_with(|| durable[number * SECTOR..][..SECTOR].to_vec())
    }

    fn write(&mut self, mut at: usize, mut data: &[u8]) {
        while !data.is_empty() {
            let within = at % SECTOR;
            let len = data.len().min(SECTOR - within);
            self.sector(at / SECTOR)[within..within + len].copy_from_slice(&data[..len]);
            data = &data[len..];
            at += len;
        }
    }

    fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let end = (at + len).min(self.durable.len());
        let mut bytes = self.durable[at.min(end)..end].to_vec();
        for (number, sector) in self.cache.range(at / SECTOR..end.div_ceil(SECTOR)) {
            let start = number * SECTOR;
            let (from, to) = (start.max(at), (start + SECTOR).min(end));
            bytes[from - at..to - at].copy_from_slice(&sector[from - start..to - start]);
        }
        bytes
    }
}

impl Filesystem for PowerDisk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&FOREVER, &self.attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(inode));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.locked();
        if state.has_power {
            reply.data(&state.read(usize::try_from(offset).unwrap(), size as usize));
        } else {
            reply.error(Errno::EIO);
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.locked();
        if state.has_power {
            state.write(usize::try_from(offset).unwrap(), data);
            reply.written(u32::try_from(data.len()).unwrap());
        } else {
            reply.error(Errno::EIO);
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.locked();
        if !state.has_power {
            return reply.error(Errno::EIO);
        }
        for (number, sector) in std::mem::take(&mut state.cache) {
            state.durable[number * SECTOR..][..SECTOR].copy_from_slice(&sector);
        }
        state.flushes += 1;
        reply.ok();
    }
}
