//! Requests through a whole ring, and drivers that break its rules.

use super::super::inflight::{Inflight, Shape};
use super::super::memory::Shared;
use super::super::testing::{DATA, Desc, Guest, MEMORY, TestDisk, into, memory_file, out};
use super::super::wire::request;
use super::*;

const STATUS_AT: u64 = DATA + 0x100;
const INTO: u64 = DATA + 0x1000;
const UNTOUCHED: u8 = 0xee;

struct Rig {
    guest: Guest,
    disk: Arc<Disk>,
    inflight: Option<Arc<Inflight>>,
    log: Option<Arc<DirtyLog>>,
}

impl Rig {
    fn new(size: u16) -> Self {
        let export = Arc::new(Export::new("disk", Arc::new(TestDisk::new(1 << 20))));
        let disk = Arc::new(Disk::new(export, &VhostOptions::default()));
        let guest = Guest::new(size);
        guest.write(STATUS_AT, &[UNTOUCHED]);
        Self { guest, disk, inflight: None, log: None }
    }

    fn with_inflight(size: u16) -> Self {
        let shape = Shape::new(1, size, 1).unwrap();
        let region = Inflight::new(shape, shape.make().unwrap(), 0, shape.bytes()).unwrap();
        Self { inflight: Some(Arc::new(region)), ..Self::new(size) }
    }

    /// A server of the queue, as after a start.
    fn queue(&self, base: u16) -> Queue {
        let (disk, memory, log) =
            (Arc::clone(&self.disk), self.guest.memory.clone(), self.log.clone());
        let negotiated = Negotiated { takes_indirect: true, flushes: true };
        let ring =
            Ring::new(&self.guest.memory, self.guest.size, &self.guest.address(), true).unwrap();
        let inflight = self.inflight.as_ref().and_then(|inflight| inflight.of_queue(0));
        Queue::new(disk, memory, log, negotiated, ring, base, inflight).unwrap()
    }

    /// Writes the request to read a sector, at three descriptors.
    fn read_sector(&self, head: u16, sector: u64) {
        let at = DATA + u64::from(head) * 32;
        self.head(at, request::IN, sector);
        let place = INTO + u64::from(head) * 512;
        self.guest.chain(head, &[out(at, 16), into(place, 512), into(STATUS_AT, 1)]);
    }

    fn head(&self, at: u64, kind: u32, sector: u64) {
        self.guest.write(at, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
    }

    fn disk_bytes(&self, sector: usize) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        self.disk.export.device().read_at(&mut bytes, sector as u64 * 512).unwrap();
        bytes
    }
}

#[test]
fn requests_come_back_with_status_bytes_and_data() {
    let mut rig = Rig::new(16);
    let mut queue = rig.queue(0);
    assert!(!queue.serve_next().unwrap());
    rig.read_sector(0, 7);
    rig.read_sector(3, 9999);
    rig.guest.offer(0);
    rig.guest.offer(3);
    assert!(queue.serve_next().unwrap());
    assert_eq!(rig.guest.read(STATUS_AT, 1), [0]);
    assert_eq!(rig.guest.read(INTO, 512), rig.disk_bytes(7));
    assert!(queue.serve_next().unwrap());
    assert_eq!(rig.guest.read(STATUS_AT, 1), [1], "past the end");
    assert!(!queue.serve_next().unwrap());
    assert_eq!(rig.guest.returned(), [(0, 513), (3, 1)]);
    assert_eq!(queue.base(), 2);
    let counted = rig.disk.counters.snapshot();
    assert_eq!((counted.requests, counted.refused, counted.bytes_read), (2, 1, 512));
}

#[test]
fn one_head_offered_many_times_is_served_as_often() {
    let mut rig = Rig::new(4);
    let mut queue = rig.queue(0);
    rig.read_sector(0, 1);
    for _ in 0..4 {
        rig.guest.offer(0);
    }
    while queue.serve_next().unwrap() {}
    assert_eq!(rig.guest.returned(), [(0, 513); 4]);
}

/// What a hostile driver writes, and that its queue ends there.
#[test]
fn a_queue_whose_driver_breaks_the_rules_is_broken_and_touches_nothing() {
    type Write = fn(&mut Rig);
    let hostile: [(&str, Write); 12] = [
        ("a head past the queue", |rig| rig.guest.offer(16)),
        ("more heads than the queue has", |rig| rig.guest.say_offered(17)),
        ("a ring of descriptors", |rig| {
            rig.guest.describe(0, Desc { flags: 1, next: 0, ..out(DATA, 16) });
            rig.guest.offer(0);
        }),
        ("a next that is not there", |rig| {
            rig.guest.describe(0, Desc { flags: 1, next: 16, ..out(DATA, 16) });
            rig.guest.offer(0);
        }),
        ("a head outside of memory", |rig| {
            rig.guest.chain(0, &[out(MEMORY, 16), into(STATUS_AT, 1)]);
            rig.guest.offer(0);
        }),
        ("data outside of memory", |rig| {
            rig.head(DATA, request::IN, 0);
            rig.guest.chain(0, &[out(DATA, 16), into(MEMORY - 256, 512), into(STATUS_AT, 1)]);
            rig.guest.offer(0);
        }),
        ("a status outside of memory", |rig| {
            rig.head(DATA, request::IN, 0);
            rig.guest.chain(0, &[out(DATA, 16), into(INTO, 512), into(u64::MAX, 1)]);
            rig.guest.offer(0);
        }),
        ("no status", |rig| {
            rig.head(DATA, request::OUT, 0);
            rig.guest.chain(0, &[out(DATA, 16), out(INTO, 512)]);
            rig.guest.offer(0);
        }),
        ("no head", |rig| {
            rig.guest.chain(0, &[into(INTO, 512), into(STATUS_AT, 1)]);
            rig.guest.offer(0);
        }),
        ("half a head", |rig| {
            rig.guest.chain(0, &[out(DATA, 15), into(STATUS_AT, 1)]);
            rig.guest.offer(0);
        }),
        ("parts in a wrong order", |rig| {
            rig.guest.chain(0, &[into(STATUS_AT, 1), out(DATA, 16)]);
            rig.guest.offer(0);
        }),
        ("a length past everything", |rig| {
            rig.guest.chain(0, &[out(DATA, u32::MAX), into(STATUS_AT, 1)]);
            rig.guest.offer(0);
        }),
    ];
    for (what, write) in hostile {
        let mut rig = Rig::new(16);
        rig.guest.write(INTO, &[UNTOUCHED; 512]);
        let mut queue = rig.queue(0);
        write(&mut rig);
        assert!(queue.serve_next().is_err(), "{what}");
        assert_eq!(rig.guest.used_index(), 0, "{what}");
        assert_eq!(rig.guest.read(STATUS_AT, 1), [UNTOUCHED], "{what}");
        assert_eq!(rig.guest.read(INTO, 512), [UNTOUCHED; 512], "{what}");
    }
}

#[test]
fn a_request_may_write_into_its_own_ring_and_harm_nobody_else() {
    // Data lands on the descriptors, on the available and on the used ring.
    for at in [0x1000, 0x6000, 0x8000] {
        let mut rig = Rig::new(4);
        let mut queue = rig.queue(0);
        rig.head(DATA, request::IN, 3);
        rig.guest.chain(0, &[out(DATA, 16), into(at, 512), into(STATUS_AT, 1)]);
        rig.guest.offer(0);
        let mut served = 0;
        while served < 100 && queue.serve_next().unwrap_or(false) {
            served += 1;
        }
        assert!(served < 100, "{at:#x}");
    }
}

#[test]
fn what_a_dead_server_had_taken_is_served_first_and_in_its_order() {
    let mut rig = Rig::with_inflight(16);
    for (head, sector) in [(0, 1), (3, 2), (6, 3)] {
        rig.read_sector(head, sector);
        rig.guest.offer(head);
    }
    let mut dying = rig.queue(0);
    assert!(dying.serve_next().unwrap());
    // It dies after it took two more: nothing of them is in the used ring.
    dying.take().unwrap();
    dying.take().unwrap();
    drop(dying);
    assert_eq!(rig.guest.returned(), [(0, 513)]);

    rig.read_sector(9, 4);
    rig.guest.offer(9);
    // The frontend says where the used ring stands.
    let mut second = rig.queue(1);
    assert_eq!(second.base(), 3, "what was taken is taken");
    while second.serve_next().unwrap() {}
    assert_eq!(rig.guest.returned(), [(3, 513), (6, 513), (9, 513)]);
    assert_eq!(rig.guest.read(INTO + 6 * 512, 512), rig.disk_bytes(3));
    assert_eq!(second.base(), 4);
    drop(second);
    let third = rig.queue(4);
    assert!(!third.has_left());
    assert_eq!(third.base(), 4);
}

#[test]
fn without_memory_for_requests_in_flight_the_frontends_word_counts() {
    let rig = Rig::new(16);
    assert_eq!(rig.queue(5).base(), 5);
    // As well as with memory that is fresh.
    assert_eq!(Rig::with_inflight(16).queue(5).base(), 5);
}

#[test]
fn every_page_that_is_written_is_logged() {
    let mut rig = Rig::new(16);
    let log = Shared::new(memory_file(4096), 0, 4096).unwrap();
    rig.log = Some(Arc::new(DirtyLog::new(log)));
    let mut queue = rig.queue(0);
    rig.read_sector(0, 7);
    rig.guest.offer(0);
    assert!(queue.serve_next().unwrap());
    let marked = |page: u64| rig.log.as_ref().unwrap().has(page);
    let pages: Vec<_> = (0..256).filter(|page| marked(*page)).collect();
    assert_eq!(pages, [STATUS_AT / 4096, INTO / 4096]);
}

#[test]
fn a_log_that_is_too_short_breaks_the_queue() {
    let mut rig = Rig::new(16);
    // For pages below that of the data.
    let log = Shared::new(memory_file(4096), 0, 2).unwrap();
    rig.log = Some(Arc::new(DirtyLog::new(log)));
    let mut queue = rig.queue(0);
    rig.read_sector(0, 7);
    rig.guest.offer(0);
    assert!(matches!(queue.serve_next(), Err(Broken::Log(_))));
    assert_eq!(rig.guest.used_index(), 0);
}
