//! What `stat` and `statfs` say of the file and its folder. Knows no kernel messages but the shape of the
//! answer.

use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::device::{Allocation, BlockDevice, SpaceUsage};

/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;
/// Runs of a disk that does not know its own space which are looked at for `st_blocks`.
const MAX_COUNTED_EXTENTS: u32 = 1024;
/// What suits reads and writes: a page.
pub(super) const PREFERRED_BYTES: u32 = 4096;

/// What belongs to the file and not to the disk; forgotten when it is unmounted.
#[derive(Debug)]
pub(super) struct Attributes {
    is_read_only: bool,
    permissions: AtomicU32,
    user: AtomicU32,
    group: AtomicU32,
    /// Nanoseconds since 1970.
    modified: AtomicU64,
    mounted: SystemTime,
    /// Of a disk that does not change.
    allocated: OnceLock<u64>,
}

/// What is to change of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NewAttributes {
    pub(super) mode: Option<u32>,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) modified: Option<SystemTime>,
}

impl Attributes {
    /// A file that its owner may read, and write unless it `is_read_only`.
    pub(super) fn new(is_read_only: bool) -> Self {
        let mounted = SystemTime::now();
        Self {
            is_read_only,
            permissions: AtomicU32::new(if is_read_only { 0o400 } else { 0o600 }),
            user: AtomicU32::new(rustix::process::geteuid().as_raw()),
            group: AtomicU32::new(rustix::process::getegid().as_raw()),
            modified: AtomicU64::new(nanoseconds(mounted)),
            mounted,
            allocated: OnceLock::new(),
        }
    }

    /// The file was written.
    pub(super) fn touch(&self) {
        self.modified.store(nanoseconds(SystemTime::now()), Ordering::Relaxed);
    }

    /// Takes what is new; the kernel has asked who may.
    pub(super) fn change(&self, new: NewAttributes) {
        // No bit of a mode but the permissions: nobody gets another's rights by a disk.
        let mode = new.mode.map(|mode| mode & 0o777);
        let values = [(&self.permissions, mode), (&self.user, new.user), (&self.group, new.group)];
        for (place, value) in values {
            if let Some(value) = value {
                place.store(value, Ordering::Relaxed);
            }
        }
        if let Some(time) = new.modified {
            self.modified.store(nanoseconds(time), Ordering::Relaxed);
        }
    }

    /// What `stat` says of the file.
    pub(super) fn of_file(&self, inode: INodeNo, disk: &dyn BlockDevice) -> FileAttr {
        let modified = UNIX_EPOCH + Duration::from_nanos(self.modified.load(Ordering::Relaxed));
        FileAttr {
            ino: inode,
            size: disk.size(),
            blocks: self.allocated(disk).div_ceil(BLOCK_BYTES),
            atime: modified,
            mtime: modified,
            ctime: modified,
            crtime: self.mounted,
            kind: FileType::RegularFile,
            // Nine bits.
            perm: u16::try_from(self.permissions.load(Ordering::Relaxed)).unwrap_or_default(),
            nlink: 1,
            uid: self.user.load(Ordering::Relaxed),
            gid: self.group.load(Ordering::Relaxed),
            rdev: 0,
            blksize: PREFERRED_BYTES,
            flags: 0,
        }
    }

    /// What `stat` says of the folder: whoever may open the file may look it up.
    pub(super) fn of_folder(&self, inode: INodeNo, disk: &dyn BlockDevice) -> FileAttr {
        let file = self.of_file(inode, disk);
        let (kind, perm) = (FileType::Directory, 0o555);
        FileAttr { kind, perm, size: 0, blocks: 0, nlink: 2, mtime: self.mounted, ..file }
    }

    /// Bytes that are stored, at most the size of the disk: what the image takes where it knows, else
    /// what a look at its first runs says of the whole.
    pub(super) fn allocated(&self, disk: &dyn BlockDevice) -> u64 {
        if let Ok(Some(SpaceUsage { end, free: Some(free), .. })) = disk.space_usage() {
            return end.saturating_sub(free).min(disk.size());
        }
        match self.is_read_only {
            true => *self.allocated.get_or_init(|| counted(disk)),
            false => counted(disk),
        }
    }
}

/// Bytes of data, by the first runs; less than all of them if that is not known for certain, so that
/// programs go on to ask where the holes are.
fn counted(disk: &dyn BlockDevice) -> u64 {
    let size = disk.size();
    let (mut seen, mut data, mut extents) = (0, 0, 0);
    let walked = disk.each_extent(0..size, &mut |extent| {
        seen += extent.len;
        if extent.allocation == Allocation::Data {
            data += extent.len;
        }
        extents += 1;
        if extents == MAX_COUNTED_EXTENTS {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if seen == size && walked.is_ok() {
        return data;
    }
    let share = u128::from(data) * u128::from(size) / u128::from(seen.max(1));
    u64::try_from(share).unwrap_or(size).min(size.saturating_sub(BLOCK_BYTES))
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
