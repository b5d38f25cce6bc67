//! An event loop that waits for the engine beside other things, and memory of the caller.

use std::sync::{Arc, Mutex};

use qed_core::{GivenBacking, Prepared};
use qed_engine::{Direction, Engine, EngineRequest, Served};
use qed_io::SharedBuf;
use qed_spec::GuestOffset;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::retry_on_intr;

use crate::support::{CLUSTER, DISK, make};

const COUNT: u64 = 1000;
const IN_FLIGHT: u64 = 32;

/// Bytes of request `tag`, which has a place of its own.
const LEN: usize = 4096;

fn place(tag: u64) -> u64 {
    // 7919 is prime, and no factor of the number of places.
    tag * 7919 % (DISK / LEN as u64) * LEN as u64
}

fn request(engine: &Engine<SharedBuf>, tag: u64, direction: Direction) -> EngineRequest<SharedBuf> {
    let mut buffer = engine.buffer(LEN);
    buffer.fill(tag as u8);
    EngineRequest { tag, direction, at: place(tag), buffer: SharedBuf(buffer) }
}

/// Keeps requests of one kind in flight, and sleeps in epoll whenever nothing has ended.
fn run(engine: &mut Engine<SharedBuf>, direction: Direction) -> Vec<Served<SharedBuf>> {
    let loop_fd = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let event = engine.completion_fd().unwrap();
    epoll::add(&loop_fd, event, EventData::new_u64(1), EventFlags::IN).unwrap();
    let (mut started, mut served) = (0, Vec::new());
    while (served.len() as u64) < COUNT {
        while started < COUNT && started - (served.len() as u64) < IN_FLIGHT {
            engine.start(request(engine, started, direction));
            started += 1;
        }
        let before = served.len();
        while let Some(one) = engine.try_wait().unwrap() {
            served.push(one);
        }
        if served.len() == before {
            let mut events = Vec::with_capacity(1);
            retry_on_intr(|| epoll::wait(&loop_fd, spare_capacity(&mut events), None)).unwrap();
        }
    }
    assert!(engine.try_wait().unwrap().is_none());
    served
}

#[test]
fn an_event_loop_serves_a_thousand_requests_from_memory_of_its_own() {
    for direct in [false, true] {
        let made = make(direct, false, &GivenBacking(None));
        let mut engine = Engine::for_image(made.image.clone(), 8).unwrap();
        for one in run(&mut engine, Direction::Write) {
            one.result.unwrap();
        }
        for one in run(&mut engine, Direction::Read) {
            one.result.unwrap();
            assert!(one.buffer.0.iter().all(|byte| *byte == one.tag as u8), "{}", one.tag);
        }
        drop(engine);
        made.image.close().unwrap();
    }
}

/// Nothing tells the engine when another thread is done: it keeps itself from being forgotten.
#[test]
fn a_request_that_waits_for_another_thread_keeps_the_loop_turning() {
    let made = make(false, false, &GivenBacking(None));
    let first = made.image.request();
    let other = first.prepare(GuestOffset::new(0), CLUSTER).unwrap();
    assert!(matches!(other, Prepared::Allocating(_)));
    drop(first);
    let other = Mutex::new(Some(other));
    let mut engine = Engine::for_image(Arc::clone(&made.image), 8).unwrap();
    let loop_fd = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let event = engine.completion_fd().unwrap();
    epoll::add(&loop_fd, event, EventData::new_u64(1), EventFlags::IN).unwrap();
    engine.start(EngineRequest { at: 0, ..request(&engine, 0, Direction::Write) });
    let mut turns = 0;
    let served = loop {
        if let Some(served) = engine.try_wait().unwrap() {
            break served;
        }
        let mut events = Vec::with_capacity(1);
        retry_on_intr(|| epoll::wait(&loop_fd, spare_capacity(&mut events), None)).unwrap();
        turns += 1;
        if turns == 5 {
            *other.lock().unwrap() = None;
        }
    };
    served.result.unwrap();
    assert!(turns >= 5, "it was served beside the other");
}
