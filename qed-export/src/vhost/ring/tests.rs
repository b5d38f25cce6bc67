//! Heads, events, and rings that are nowhere.

use std::sync::Arc;

use super::super::memory::Shared;
use super::super::testing::{Guest, memory_file};
use super::*;

fn ring(guest: &Guest, has_event_index: bool) -> Ring {
    Ring::new(&guest.memory, guest.size, &guest.address(), has_event_index).unwrap()
}

#[test]
fn heads_are_taken_in_order_and_come_back_with_their_bytes() {
    let mut guest = Guest::new(4);
    let mut ring = ring(&guest, false);
    assert_eq!(ring.take().unwrap(), None);
    for round in 0..3 {
        for head in [2, 0, 3, 1] {
            guest.offer(head);
        }
        for head in [2, 0, 3, 1] {
            assert_eq!(ring.take().unwrap(), Some(head), "round {round}");
        }
        assert_eq!(ring.take().unwrap(), None);
        // Out of order.
        for head in [1, 2, 3, 0] {
            ring.give_back(head, u32::from(head) + 10, None).unwrap();
        }
        assert_eq!(guest.returned(), [(1, 11), (2, 12), (3, 13), (0, 10)]);
    }
}

#[test]
fn indices_wrap() {
    let mut guest = Guest::new(2);
    guest.set_used_index(u16::MAX);
    let mut ring = ring(&guest, false);
    assert_eq!((ring.next_available(), ring.next_used()), (u16::MAX, u16::MAX));
    guest.say_offered(u16::MAX);
    assert_eq!(ring.take().unwrap(), None);
    guest.say_offered(0);
    assert_eq!(ring.take().unwrap(), Some(0));
    ring.give_back(0, 1, None).unwrap();
    assert_eq!(guest.used_index(), 0);
    guest.offer(1);
    assert_eq!(ring.take().unwrap(), Some(1));
}

#[test]
fn more_heads_than_the_queue_has_are_refused() {
    let guest = Guest::new(4);
    let mut taken = ring(&guest, false);
    guest.say_offered(4);
    assert_eq!(taken.take().unwrap(), Some(0));
    for index in [6, 0x8000, 0] {
        guest.say_offered(index);
        assert!(matches!(taken.take(), Err(RingError::TooManyWaiting { .. })), "{index}");
    }
}

#[test]
fn a_head_that_is_not_in_the_queue_is_refused() {
    for head in [4, 5, u16::MAX] {
        let mut guest = Guest::new(4);
        let mut ring = ring(&guest, false);
        guest.offer(head);
        assert!(matches!(ring.take(), Err(RingError::NoSuchHead(found)) if found == head));
    }
}

#[test]
fn queues_of_no_size_and_rings_that_are_nowhere_are_refused() {
    let guest = Guest::new(4);
    let of_size = |size| Ring::new(&guest.memory, size, &guest.address(), true);
    for size in [0, 3, 6, 1025, 2048, 0x8000, u16::MAX] {
        assert!(matches!(of_size(size), Err(RingError::Size(_))), "{size}");
    }
    let at = |address| Ring::new(&guest.memory, 1024, &address, true);
    let good = guest.address();
    for address in [
        RingAddress { descriptors: 0, ..good },
        RingAddress { descriptors: good.descriptors + 8, ..good },
        RingAddress { descriptors: u64::MAX - 15, ..good },
        RingAddress { available: good.available + 1, ..good },
        RingAddress { available: u64::MAX - 1, ..good },
        RingAddress { used: good.used + 2, ..good },
        RingAddress { used: 0, ..good },
        RingAddress::default(),
    ] {
        assert!(matches!(at(address), Err(RingError::Memory(_))), "{address:x?}");
    }
    at(good).unwrap();
}

#[test]
fn an_interrupt_is_wanted_unless_the_driver_says_no() {
    let guest = Guest::new(4);
    let mut ring = ring(&guest, false);
    assert!(ring.wants_interrupt().unwrap());
    guest.set_available_flags(NO_INTERRUPT);
    assert!(!ring.wants_interrupt().unwrap());
}

#[test]
fn an_interrupt_is_wanted_when_the_event_is_passed() {
    // Each case: the event, how many came back before the question, whether one is wanted.
    let cases: [(u16, &[(u16, bool)]); 5] = [
        (0, &[(1, true), (1, false)]),
        (1, &[(1, false), (1, true), (1, false)]),
        (2, &[(2, false), (2, true)]),
        (3, &[(4, true)]),
        (u16::MAX, &[(1, false), (4, false)]),
    ];
    for (event, steps) in cases {
        let guest = Guest::new(4);
        let mut ring = ring(&guest, true);
        guest.set_used_event(event);
        for (step, (count, wanted)) in steps.iter().enumerate() {
            for _ in 0..*count {
                ring.give_back(0, 0, None).unwrap();
            }
            assert_eq!(ring.wants_interrupt().unwrap(), *wanted, "{event} step {step}");
        }
        assert!(!ring.wants_interrupt().unwrap(), "none came back");
    }
}

#[test]
fn kicks_are_asked_for_where_the_ring_ends() {
    let mut guest = Guest::new(4);
    let mut with_index = ring(&guest, true);
    guest.offer(1);
    assert!(with_index.ask_for_kicks(None).unwrap(), "one came before");
    with_index.take().unwrap();
    assert!(!with_index.ask_for_kicks(None).unwrap());
    assert_eq!(guest.available_event(), 1);
    with_index.ask_for_no_kicks(None).unwrap();
    assert_eq!((guest.available_event(), guest.used_flags()), (1, 0));

    let mut by_flag = ring(&guest, false);
    by_flag.go_on_from(1);
    by_flag.ask_for_no_kicks(None).unwrap();
    assert_eq!(guest.used_flags(), NO_NOTIFY);
    assert!(!by_flag.ask_for_kicks(None).unwrap());
    assert_eq!(guest.used_flags(), 0);
}

#[test]
fn the_used_ring_is_logged_where_its_address_says() {
    let guest = Guest::new(4);
    let address = RingAddress { used_log: Some(5 * 4096 - 4), ..guest.address() };
    let mut ring = Ring::new(&guest.memory, 4, &address, true).unwrap();
    let log = Arc::new(DirtyLog::new(Shared::new(memory_file(4096), 0, 4096).unwrap()));
    ring.give_back(0, 1, Some(&log)).unwrap();
    // Its head lies on page 4, its elements on page 5.
    assert!(log.has(4) && log.has(5) && !log.has(3) && !log.has(6));
    let address = RingAddress { used_log: Some(u64::MAX - 1), ..address };
    let mut ring = Ring::new(&guest.memory, 4, &address, true).unwrap();
    assert!(matches!(ring.give_back(0, 1, Some(&log)), Err(RingError::Log(_))));
}
