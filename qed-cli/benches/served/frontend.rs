//! A vhost-user-blk frontend without a guest: a driver whose memory is a file in memory, and whose
//! interrupts are waited for as a guest does. Owns rings and requests; knows no case.
//!
//! Every request is three descriptors that never change: header, data, status.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{AtomicInteger, FileOffset, MmapRegion, VolatileMemory};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// Entries of a ring.
const SIZE: u16 = 128;
const DESCRIPTORS: usize = 3;
/// Requests that fit.
pub(crate) const MAX_DEPTH: usize = SIZE as usize / DESCRIPTORS;

/// Where the parts of a queue lie in its memory.
const TABLE: usize = 0;
const AVAILABLE: usize = 0x1000;
const USED: usize = 0x2000;
const HEADERS: usize = 0x3000;
const STATUSES: usize = 0x4000;
const DATA: usize = 0x5000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const VERSION_1: u64 = 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const EVENT_IDX: u64 = 1 << 29;
const MULTI_QUEUE: u64 = 1 << 12;
const FLUSH: u64 = 1 << 9;

/// What a request asks, by the numbers of virtio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read = 0,
    Write = 1,
}

/// A driver that is connected.
pub(crate) struct Guest {
    /// The connection ends with it.
    _frontend: Frontend,
    pub(crate) queues: Vec<Queue>,
}

/// A queue, for one thread.
pub(crate) struct Queue {
    memory: Arc<MmapRegion<()>>,
    base: usize,
    block: usize,
    kick: EventFd,
    call: EventFd,
    /// Waits for it.
    called: Epoll,
    available: u16,
    kicked: u16,
    used: u16,
}

impl Guest {
    /// Connects to a server, with queues for requests of `block` bytes.
    pub(crate) fn connect(socket: &Path, queues: usize, block: usize) -> Self {
        let each = (DATA + block * MAX_DEPTH).next_multiple_of(0x1000);
        let len = each * queues;
        let file = File::from(memfd_create("qed-bench", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(len as u64).unwrap();
        let handle = file.as_raw_fd();
        let memory = MmapRegion::from_file(FileOffset::new(file, 0), len).unwrap();
        let memory = Arc::new(memory);
        let address = memory.as_ptr() as u64;

        let mut frontend = Frontend::connect(socket, queues as u64).unwrap();
        frontend.set_owner().unwrap();
        let wanted = VERSION_1 | PROTOCOL_FEATURES | EVENT_IDX | MULTI_QUEUE | FLUSH;
        let features = frontend.get_features().unwrap() & wanted;
        assert_eq!(features & EVENT_IDX, EVENT_IDX, "both servers are used with event indices");
        let protocol = frontend.get_protocol_features().unwrap();
        let taken = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG;
        frontend.set_protocol_features(protocol & taken).unwrap();
        frontend.set_features(features).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: len as u64,
            userspace_addr: address,
            mmap_offset: 0,
            mmap_handle: handle,
        };
        frontend.set_mem_table(&[region]).unwrap();
        let queues = (0..queues).map(|index| {
            let queue = Queue::new(&memory, each * index, block);
            queue.start(&mut frontend, index, address);
            queue
        });
        let queues = queues.collect();
        Self { _frontend: frontend, queues }
    }
}

impl Queue {
    fn new(memory: &Arc<MmapRegion<()>>, base: usize, block: usize) -> Self {
        let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
        let memory = Arc::clone(memory);
        let called = Epoll::new().unwrap();
        let readable = EpollEvent::new(EventSet::IN, 0);
        called.ctl(ControlOperation::Add, call.as_raw_fd(), readable).unwrap();
        let (available, kicked, used) = (0, 0, 0);
        let queue = Self { memory, base, block, kick, call, called, available, kicked, used };
        for slot in 0..MAX_DEPTH {
            let first = u16::try_from(slot * DESCRIPTORS).unwrap();
            queue.set_next(first, HEADERS + 16 * slot, 16, NEXT);
            queue.set_next(first + 2, STATUSES + slot, 1, WRITE);
        }
        queue
    }

    fn start(&self, frontend: &mut Frontend, index: usize, address: u64) {
        frontend.set_vring_num(index, SIZE).unwrap();
        frontend.set_vring_base(index, 0).unwrap();
        let at = |part: usize| address + (self.base + part) as u64;
        let addresses = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: at(TABLE),
            used_ring_addr: at(USED),
            avail_ring_addr: at(AVAILABLE),
            log_addr: None,
        };
        frontend.set_vring_addr(index, &addresses).unwrap();
        frontend.set_vring_call(index, &self.call).unwrap();
        frontend.set_vring_kick(index, &self.kick).unwrap();
        frontend.set_vring_enable(index, true).unwrap();
    }

    /// Keeps `depth` requests in flight until each of `places`, bytes of the disk, was asked for.
    pub(crate) fn run(&mut self, kind: Kind, depth: usize, places: impl Iterator<Item = u64>) {
        assert!(depth <= MAX_DEPTH, "a slot for each request");
        let mut free: Vec<usize> = (0..depth).collect();
        let mut places = places.peekable();
        for slot in 0..depth {
            let data_flags = if kind == Kind::Read { NEXT | WRITE } else { NEXT };
            let first = u16::try_from(slot * DESCRIPTORS).unwrap();
            self.set_next(first + 1, DATA + slot * self.block, self.block, data_flags);
        }
        while places.peek().is_some() || free.len() < depth {
            while let (Some(&slot), Some(&at)) = (free.last(), places.peek()) {
                free.pop();
                places.next();
                self.add(slot, kind, at);
            }
            self.publish();
            let before = free.len();
            self.reap(&mut free);
            if free.len() == before {
                self.wait();
            }
        }
    }

    /// Bytes of the data of a slot, all of them equal `byte`.
    pub(crate) fn data_is(&self, slot: usize, byte: u8) -> bool {
        let words = self.block / 8;
        let want = u64::from_ne_bytes([byte; 8]);
        let word = |i| self.word::<AtomicU64>(DATA + slot * self.block + 8 * i);
        (0..words).all(|i| word(i).load(Ordering::Relaxed) == want)
    }

    /// Makes the data of all slots that.
    pub(crate) fn fill(&self, byte: u8) {
        for i in 0..MAX_DEPTH * self.block / 8 {
            let word = self.word::<AtomicU64>(DATA + 8 * i);
            word.store(u64::from_ne_bytes([byte; 8]), Ordering::Relaxed);
        }
    }

    fn add(&mut self, slot: usize, kind: Kind, at: u64) {
        let header = HEADERS + 16 * slot;
        self.word::<AtomicU32>(header).store(kind as u32, Ordering::Relaxed);
        self.word::<AtomicU64>(header + 8).store(at / 512, Ordering::Relaxed);
        self.word::<AtomicU8>(STATUSES + slot).store(0xff, Ordering::Relaxed);
        let entry = AVAILABLE + 4 + 2 * usize::from(self.available % SIZE);
        let head = u16::try_from(slot * DESCRIPTORS).unwrap();
        self.word::<AtomicU16>(entry).store(head, Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
    }

    /// Shows what was added, and kicks if the server sleeps.
    fn publish(&mut self) {
        if self.available == self.kicked {
            return;
        }
        self.word::<AtomicU16>(AVAILABLE + 2).store(self.available, Ordering::Release);
        fence(Ordering::SeqCst);
        let event = self.word::<AtomicU16>(USED + 4 + 8 * usize::from(SIZE));
        let event = event.load(Ordering::Acquire);
        let is_wanted = self.available.wrapping_sub(event).wrapping_sub(1)
            < self.available.wrapping_sub(self.kicked);
        if is_wanted {
            self.kick.write(1).unwrap();
        }
        self.kicked = self.available;
    }

    fn reap(&mut self, free: &mut Vec<usize>) {
        let index = self.word::<AtomicU16>(USED + 2).load(Ordering::Acquire);
        while self.used != index {
            let entry = USED + 4 + 8 * usize::from(self.used % SIZE);
            let head = self.word::<AtomicU32>(entry).load(Ordering::Relaxed) as usize;
            let slot = head / DESCRIPTORS;
            let status = self.word::<AtomicU8>(STATUSES + slot).load(Ordering::Relaxed);
            assert_eq!(status, 0, "the request is served");
            free.push(slot);
            self.used = self.used.wrapping_add(1);
        }
    }

    /// Waits for an interrupt, unless something is there.
    fn wait(&mut self) {
        let event = self.word::<AtomicU16>(AVAILABLE + 4 + 2 * usize::from(SIZE));
        event.store(self.used, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.word::<AtomicU16>(USED + 2).load(Ordering::Acquire) == self.used {
            // A server may have made the descriptor one that does not wait.
            self.called.wait(-1, &mut [EpollEvent::default()]).unwrap();
            let _ = self.call.read();
        }
    }

    fn set_next(&self, index: u16, at: usize, len: usize, flags: u16) {
        let entry = TABLE + 16 * usize::from(index);
        let at = (self.base + at) as u64;
        self.word::<AtomicU64>(entry).store(at, Ordering::Relaxed);
        let len = u32::try_from(len).unwrap();
        self.word::<AtomicU32>(entry + 8).store(len, Ordering::Relaxed);
        self.word::<AtomicU16>(entry + 12).store(flags, Ordering::Relaxed);
        self.word::<AtomicU16>(entry + 14).store(index + 1, Ordering::Relaxed);
    }

    fn word<T: AtomicInteger>(&self, at: usize) -> &T {
        self.memory.get_atomic_ref(self.base + at).unwrap()
    }
}
