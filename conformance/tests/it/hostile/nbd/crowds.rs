//! Many clients, and those that keep what they have: their connections stay when the server ends.

use std::time::Instant;

use super::client::*;
use super::server::{PATIENCE, Server};
use super::{Case, MEMORY_KIB};

/// What a server without further words allows: connections, and requests of one that are served at
/// a time.
const CONNECTIONS: usize = 128;
const THREADS: u64 = 4;
/// The most bytes of one request.
const REQUEST_KIB: u64 = 32 << 10;

pub(super) const CASES: &[Case] = &[
    Case::new("nbd-flood-of-connections", flood),
    Case::new("nbd-connections-that-come-and-go", come_and_go),
    Case::new("nbd-client-that-never-reads", never_reads)
        .with_args("--drain 1 -f qed")
        .with_memory(MEMORY_KIB + THREADS * REQUEST_KIB),
    Case::new("nbd-largest-requests", largest_requests)
        .with_memory(MEMORY_KIB + THREADS * REQUEST_KIB),
    Case::new("nbd-half-a-payload", half_a_payload).with_memory(MEMORY_KIB + REQUEST_KIB),
    Case::new("nbd-silent-clients", |server| {
        let silent: Vec<_> = (0..CONNECTIONS - 8).map(|_| server.transmitting()).collect();
        (0..10).for_each(|_| server.serves());
        std::mem::forget(silent);
    }),
    Case::new("nbd-counters-asked-for-without-end", |server| {
        let mut client = server.connect("m");
        client.send(&vec![b'x'; 64 << 10]);
        client.is_hung_up_on();
    }),
];

/// Eight times as many as are let in.
fn flood(server: &Server) {
    let mut inside = Vec::new();
    let mut turned_away = 0;
    for _ in 0..8 * CONNECTIONS {
        match server.greeted() {
            Some(client) => inside.push(client),
            None => turned_away += 1,
        }
    }
    assert_eq!((inside.len(), turned_away), (CONNECTIONS, 7 * CONNECTIONS));
}

fn come_and_go(server: &Server) {
    server.serves();
    let before = server.descriptors();
    for index in 0..2000 {
        match index % 3 {
            0 => drop(server.connect("s")),
            1 => drop(server.greeted()),
            _ => drop(server.transmitting()),
        }
    }
    let start = Instant::now();
    while server.descriptors() > before {
        assert!(
            start.elapsed() < PATIENCE,
            "{} descriptors are left",
            server.descriptors() - before
        );
    }
}

/// Asks for 2 GiB in the largest pieces that there are, and takes nothing of it; others go on, and so
/// does the server when it has to end.
fn never_reads(server: &Server) {
    let mut client = server.transmitting();
    client.send(&request(0, READ, 0, 32 << 20).repeat(64));
    // It is being served when the first reply is on its way.
    assert_eq!(client.simple(), 0);
    (0..10).for_each(|_| server.serves());
    std::mem::forget(client);
}

/// Has many of the largest requests served, and then is silent: the memory is not its own.
fn largest_requests(server: &Server) {
    let mut client = server.transmitting();
    client.send(&request(0, READ, 0, 32 << 20).repeat(16));
    for _ in 0..16 {
        assert_eq!(client.simple(), 0);
        client.take(32 << 20).expect("its data");
    }
    let start = Instant::now();
    while server.memory_kib() > MEMORY_KIB {
        assert!(start.elapsed() < PATIENCE, "{} KiB are kept", server.memory_kib());
    }
}

/// Announces as much as it may and sends a part.
fn half_a_payload(server: &Server) {
    let mut client = server.transmitting();
    client.send(&request(0, WRITE, 0, 32 << 20));
    client.send(&vec![7; 20 << 20]);
    (0..10).for_each(|_| server.serves());
    std::mem::forget(client);
}
