//! A virtual machine without a processor: memory, queues with a driver, and a frontend of the crate
//! `vhost`, which is not ours.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use qed_export::vhost::{Memory, RegionInfo};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Where the frontend says that it has the memory.
const FRONTEND: u64 = 0x7f00_0000_0000;
pub(crate) const MEMORY: u64 = 16 << 20;
/// Each queue has its ring and its data here.
const QUEUE_BYTES: u64 = 2 << 20;
const AVAILABLE: u64 = 0x8000;
const USED: u64 = 0x1_0000;
const HEADS: u64 = 0x2_0000;
pub(crate) const DATA: u64 = 0x8_0000;
/// Longer than anything here takes.
const PATIENCE_MS: i32 = 60_000;

pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_INDEX: u64 = 1 << 29;
pub(crate) const LOG_ALL: u64 = 1 << 26;
pub(crate) const PROTOCOL: u64 = 1 << 30;
const READ_ONLY: u64 = 1 << 5;

/// A machine that is plugged into a server.
pub(crate) struct Machine {
    pub(crate) frontend: Frontend,
    pub(crate) board: Board,
    pub(crate) features: u64,
}

/// What of a machine stays when its server goes.
pub(crate) struct Board {
    file: File,
    pub(crate) queues: Vec<Queue>,
    pub(crate) inflight: Option<(VhostUserInflight, File)>,
}

/// The driver of one queue.
pub(crate) struct Queue {
    start: u64,
    size: u16,
    memory: Memory,
    kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) error: EventFd,
    next: u16,
    seen: u16,
    /// Used descriptors go round.
    free: u16,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) kind: u32,
    pub(crate) sector: u64,
    /// What the driver writes behind the head.
    pub(crate) out: &'a [u8],
    /// Bytes that the device may write.
    pub(crate) into: u32,
    pub(crate) indirect: bool,
}

/// A request that is on its way: where its status and its data come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) head: u16,
    status_at: u64,
    data_at: u64,
    into: u32,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: u8,
    pub(crate) written: u32,
    pub(crate) data: Vec<u8>,
}

impl Ask<'_> {
    const NONE: Self = Ask { kind: 0, sector: 0, out: &[], into: 0, indirect: false };
    pub(crate) const FLUSH: Self = Ask { kind: VIRTIO_BLK_T_FLUSH, ..Self::NONE };
    pub(crate) const ID: Self = Ask { kind: VIRTIO_BLK_T_GET_ID, into: 20, ..Self::NONE };

    pub(crate) fn read(sector: u64, into: u32) -> Ask<'static> {
        Ask { kind: VIRTIO_BLK_T_IN, sector, into, ..Ask::NONE }
    }
}

impl<'a> Ask<'a> {
    pub(crate) fn write(sector: u64, out: &'a [u8]) -> Self {
        Self { kind: VIRTIO_BLK_T_OUT, sector, out, ..Ask::NONE }
    }

    pub(crate) fn discard(out: &'a [u8]) -> Self {
        Self { kind: VIRTIO_BLK_T_DISCARD, out, ..Ask::NONE }
    }

    pub(crate) fn zero(out: &'a [u8]) -> Self {
        Self { kind: VIRTIO_BLK_T_WRITE_ZEROES, out, ..Ask::NONE }
    }
}

/// A range to discard or to zero.
pub(crate) fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// A file in memory, all zeros.
pub(crate) fn memory_file(len: u64) -> File {
    qed_export::vhost::memory_file(len).expect("a file")
}

impl Board {
    pub(crate) fn new(queues: u64, size: u16) -> Self {
        let file = memory_file(MEMORY);
        let region = RegionInfo { guest: 0, len: MEMORY, frontend: FRONTEND, file_offset: 0 };
        let memory = Memory::default();
        let memory = memory.with(region, file.try_clone().expect("a file")).expect("memory");
        let queue = |index| Queue::new(index * QUEUE_BYTES, size, &memory);
        let queues = (0..queues).map(queue).collect();
        Self { file, queues, inflight: None }
    }

    /// The region of all memory, as `vhost` wants it.
    pub(crate) fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: FRONTEND,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// Plugs the machine into the server at `path`, as far as its driver has begun.
    pub(crate) fn plug(self, path: &Path, features: u64) -> Machine {
        let stream = UnixStream::connect(path).expect("connected");
        let mut machine = self.greet(stream, features);
        machine.start();
        machine
    }

    /// Negotiates, and shares memory and requests in flight.
    pub(crate) fn greet(mut self, stream: UnixStream, features: u64) -> Machine {
        let mut frontend = Frontend::from_stream(stream, self.queues.len() as u64);
        let offered = frontend.get_features().expect("features");
        let features = (features | PROTOCOL | (offered & READ_ONLY)) & offered;
        frontend.set_owner().expect("an owner");
        let protocol = frontend.get_protocol_features().expect("protocol features");
        frontend.set_protocol_features(protocol).expect("taken");
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(features).expect("taken");
        frontend.set_mem_table(&[self.region()]).expect("memory");
        if protocol.contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD) {
            let (info, file) = self.inflight.take().unwrap_or_else(|| {
                let queues = u16::try_from(self.queues.len()).expect("few");
                let wanted = VhostUserInflight::new(0, 0, queues, self.queues[0].size);
                frontend.get_inflight_fd(&wanted).expect("memory for requests in flight")
            });
            frontend.set_inflight_fd(&info, file.as_raw_fd()).expect("taken");
            self.inflight = Some((info, file));
        }
        Machine { frontend, board: self, features }
    }
}

impl Machine {
    /// Starts all queues where their drivers stand.
    pub(crate) fn start(&mut self) {
        for index in 0..self.board.queues.len() {
            self.start_queue(index, None);
        }
    }

    pub(crate) fn start_queue(&mut self, index: usize, log_addr: Option<u64>) {
        let queue = &self.board.queues[index];
        let frontend = &mut self.frontend;
        frontend.set_vring_num(index, queue.size).expect("a size");
        frontend.set_vring_base(index, queue.used_index()).expect("a base");
        frontend.set_vring_addr(index, &queue.config(log_addr)).expect("an address");
        frontend.set_vring_call(index, &queue.call).expect("a line");
        frontend.set_vring_err(index, &queue.error).expect("a line");
        frontend.set_vring_kick(index, &queue.kick).expect("a line");
        frontend.set_vring_enable(index, true).expect("enabled");
    }

    pub(crate) fn config(&mut self, offset: u32, len: u32) -> Vec<u8> {
        let room = vec![0; len as usize];
        let flags = VhostUserConfigFlags::empty();
        self.frontend.get_config(offset, len, flags, &room).expect("the configuration").1
    }

    pub(crate) fn sectors(&mut self) -> u64 {
        u64::from_le_bytes(self.config(0, 8).try_into().expect("eight bytes"))
    }

    /// Asks on the first queue, and waits.
    pub(crate) fn ask(&mut self, ask: Ask<'_>) -> Got {
        self.board.queues[0].ask(ask)
    }

    /// Goes away without a word.
    pub(crate) fn unplug(self) -> Board {
        self.board
    }
}

impl Queue {
    fn new(start: u64, size: u16, memory: &Memory) -> Self {
        let line = || EventFd::new(EFD_NONBLOCK).expect("a line");
        let memory = memory.clone();
        Self {
            start,
            size,
            memory,
            kick: line(),
            call: line(),
            error: line(),
            next: 0,
            seen: 0,
            free: 0,
        }
    }

    pub(crate) fn config(&self, log_addr: Option<u64>) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: u32::from(log_addr.is_some()),
            desc_table_addr: FRONTEND + self.start,
            used_ring_addr: FRONTEND + self.start + USED,
            avail_ring_addr: FRONTEND + self.start + AVAILABLE,
            log_addr,
        }
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(bytes, self.start + at).expect("memory");
    }

    pub(crate) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(&mut bytes, self.start + at).expect("memory");
        bytes
    }

    fn u16_at(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at, 2).try_into().expect("two bytes"))
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.u16_at(USED + 2)
    }

    /// Wants an interrupt when this many have come back.
    pub(crate) fn set_used_event(&self, index: u16) {
        self.write(AVAILABLE + 4 + u64::from(self.size) * 2, &index.to_le_bytes());
    }

    /// The driver begins anew, as at a boot.
    pub(crate) fn reset(&mut self) {
        self.write(0, &vec![0; usize::try_from(DATA).expect("it fits")]);
        (self.next, self.seen, self.free) = (0, 0, 0);
    }

    /// Puts a request into the ring; heads, data and statuses of three at a time lie apart.
    pub(crate) fn send(&mut self, ask: Ask<'_>) -> Sent {
        let head = self.free;
        let table_at = HEADS + u64::from(head) * 0x200;
        let (head_at, status_at) = (table_at + 0x100, table_at + 0x110);
        let data_at = DATA + u64::from(head) * 0x1000;
        let sector = ask.sector.to_le_bytes();
        self.write(head_at, &[&ask.kind.to_le_bytes()[..], &[0; 4], &sector].concat());
        self.write(status_at, &[0xff]);
        self.write(data_at, ask.out);
        let out = u32::try_from(ask.out.len()).expect("short");
        let parts =
            [(head_at, 16, 0), (data_at, out, 0), (data_at, ask.into, 2), (status_at, 1, 2)];
        let parts: Vec<_> = parts.into_iter().filter(|part| part.1 > 0).collect();
        let first = if ask.indirect { 0 } else { head };
        let table = if ask.indirect { table_at } else { 0 };
        for (index, (at, len, flags)) in (first..).zip(&parts) {
            let is_last = usize::from(index - first) + 1 == parts.len();
            let flags = flags | u16::from(!is_last);
            self.describe(table, index, *at, *len, flags, index + 1);
        }
        if ask.indirect {
            let len = u32::try_from(parts.len() * 16).expect("short");
            self.describe(0, head, table_at, len, 4, 0);
        }
        self.free = (self.free + 4) % self.size;
        self.offer(head);
        Sent { head, status_at, data_at, into: ask.into }
    }

    pub(crate) fn describe(
        &self,
        table: u64,
        index: u16,
        at: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let at = (self.start + at).to_le_bytes();
        let rest = [&len.to_le_bytes()[..], &flags.to_le_bytes(), &next.to_le_bytes()].concat();
        self.write(table + u64::from(index) * 16, &[&at[..], &rest].concat());
    }

    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.next % self.size);
        self.write(AVAILABLE + 4 + slot * 2, &head.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        self.write(AVAILABLE + 2, &self.next.to_le_bytes());
    }

    pub(crate) fn kick(&self) {
        self.kick.write(1).expect("kicked");
    }

    /// Waits until so many more have come back, by interrupts alone.
    pub(crate) fn wait_for(&mut self, count: u16) {
        let until = self.seen.wrapping_add(count);
        while self.used_index().wrapping_sub(self.seen) < count {
            assert!(is_set(&self.call), "no interrupt for {until}, {} came", self.used_index());
        }
        self.seen = until;
    }

    pub(crate) fn got(&self, sent: Sent) -> Got {
        // The newest element of that head.
        let element = |back: u16| {
            let slot = u64::from(self.used_index().wrapping_sub(back) % self.size);
            let word = |at| u32::from_le_bytes(self.read(at, 4).try_into().expect("four bytes"));
            (word(USED + 4 + slot * 8), word(USED + 8 + slot * 8))
        };
        let found = (1..=self.size).map(element).find(|(head, _)| *head == u32::from(sent.head));
        let data = self.read(sent.data_at, sent.into as usize);
        let status = self.read(sent.status_at, 1)[0];
        Got { status, written: found.expect("it came back").1, data }
    }

    pub(crate) fn ask(&mut self, ask: Ask<'_>) -> Got {
        self.set_used_event(self.seen);
        let sent = self.send(ask);
        self.kick();
        self.wait_for(1);
        self.got(sent)
    }
}

/// Waits for a line, and takes back what it counted; false if nothing sets it.
pub(crate) fn is_set(line: &EventFd) -> bool {
    let epoll = Epoll::new().expect("a poll");
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, line.as_raw_fd(), event).expect("watched");
    let mut events = [EpollEvent::default()];
    // A ring that this thread had interrupts it once more when it ends.
    let ready = loop {
        match epoll.wait(PATIENCE_MS, &mut events) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            waited => break waited.expect("it waits"),
        }
    };
    ready > 0 && line.read().is_ok()
}
