//! Who waits has its turn, however many others are asked for meanwhile.

use qed_core::{GivenBacking, Prepared};
use qed_engine::{Engine, Served};
use qed_spec::GuestOffset;

use crate::support::{CLUSTER, DISK, finish, make, read, write};

/// More requests than may pass before one that waits has its turn.
const MANY: u64 = 10_000;
const LAST: u64 = DISK / CLUSTER - 1;
const WRITE: u64 = u64::MAX;

/// Keeps `engine` at work with reads of `at`, two at a time, until the write is served.
fn read_until_written(engine: &mut Engine, at: u64, mut each: impl FnMut(u64)) {
    for tag in 0..2 {
        read(engine, tag, at, 4096);
    }
    for round in 0..MANY {
        let Served { tag, result, .. } = engine.wait().unwrap().expect("reads are in flight");
        result.unwrap();
        if tag == WRITE {
            return;
        }
        each(round);
        read(engine, tag, at, 4096);
    }
    panic!("the write is not served");
}

#[test]
fn a_write_that_waited_for_another_thread_is_served_beside_reads() {
    let made = make(false, false, &GivenBacking(None));
    made.image.write_at(&[9; 4096], GuestOffset::new(LAST * CLUSTER)).unwrap();
    let request = made.image.request();
    let mut other = Some(request.prepare(GuestOffset::new(0), 4096).unwrap());
    drop(request);
    assert!(matches!(other, Some(Prepared::Allocating(_))));
    let mut engine = Engine::for_image(made.image.clone(), 4).unwrap();
    write(&mut engine, WRITE, 0, &[7; 4096]);
    read_until_written(&mut engine, LAST * CLUSTER, |round| {
        if round == 5 {
            other = None;
        }
    });
}

/// Reads of what is not there have ended when they have begun.
#[test]
fn a_write_in_flight_is_served_beside_requests_that_need_no_transfer() {
    let made = make(false, false, &GivenBacking(None));
    let mut engine = Engine::for_image(made.image.clone(), 4).unwrap();
    write(&mut engine, WRITE, 0, &[7; 4096]);
    read_until_written(&mut engine, LAST * CLUSTER, |_| ());
}

#[test]
fn a_few_overtake_one_that_waits_and_the_others_come_behind_it() {
    let made = make(false, false, &GivenBacking(None));
    let request = made.image.request();
    let other = request.prepare(GuestOffset::new(0), 4096).unwrap();
    drop(request);
    let mut engine = Engine::for_image(made.image.clone(), 4).unwrap();
    write(&mut engine, WRITE, 0, &[7; 4096]);
    for tag in 0..100 {
        read(&mut engine, tag, LAST * CLUSTER, 4096);
    }
    drop(other);
    let tags: Vec<_> = finish(&mut engine).into_iter().map(|(tag, _)| tag).collect();
    let place = tags.iter().position(|tag| *tag == WRITE).unwrap();
    assert!(place < 50, "{place} were served before it");
    assert_eq!(tags.len(), 101);
}
