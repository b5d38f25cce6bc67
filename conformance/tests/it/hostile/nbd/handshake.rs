//! Before there is a disk: names, lengths, order, time and encryption.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::Case;
use super::client::*;
use super::server::{PATIENCE, Server};

/// How long a handshake may take, and how much later a busy machine may end it.
const HANDSHAKE: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(20);

const TLS: &str = "--tls-cert cert.pem --tls-key key.pem -f qed";

pub(super) const CASES: &[Case] = &[
    Case::new("nbd-noise-instead-of-a-handshake", noise),
    Case::new("nbd-unknown-client-flags", unknown_flags),
    Case::new("nbd-name-of-4097-bytes", |server| {
        refused(server, GO, &[string(&[b'x'; 4097]), vec![0; 2]].concat(), TOO_BIG);
    }),
    Case::new("nbd-name-of-4-gibibytes", |server| {
        refused(server, GO, &[255, 255, 255, 255, b'x', 0, 0], INVALID);
    }),
    Case::new("nbd-option-of-4-gibibytes", |server| {
        let mut client = server.hello();
        client.send(&option_header(INFO, u32::MAX));
        client.is_hung_up_on();
    }),
    Case::new("nbd-option-of-more-than-64-kibibytes", long_option),
    Case::new("nbd-65-queries", |server| {
        let queries = [string(b""), vec![0, 0, 0, 65], string(b"base:").repeat(65)].concat();
        refused(server, SET_META, &queries, TOO_BIG);
    }),
    Case::new("nbd-silence-in-the-handshake", |server| {
        let start = Instant::now();
        let mut client = server.greeted().expect("a greeting");
        is_handshake_time(client.until_hung_up_on(start));
    }),
    Case::new("nbd-handshake-byte-by-byte", byte_by_byte),
    Case::new("nbd-options-without-end", without_end),
    Case::new("nbd-half-a-tls-handshake", half_tls).with_args(TLS),
    Case::new("nbd-in-the-clear-where-tls-is-required", in_the_clear).with_args(TLS),
    Case::new("nbd-request-before-the-handshake", |server| {
        let mut client = server.hello();
        client.send(&request(0, READ, 0, 512));
        client.is_hung_up_on();
    }),
    Case::new("nbd-option-after-the-handshake", |server| {
        let mut client = server.transmitting();
        client.send(&[option(LIST, b""), vec![0; 16]].concat());
        client.is_hung_up_on();
    }),
    Case::new("nbd-end-at-every-byte", end_at_every_byte),
];

/// Numbers that are no protocol: half of them behind the right flags.
fn noise(server: &Server) {
    let mut state = 1_u64;
    for round in 0..64 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(4096)
        .collect();
        let mut client =
            if round % 2 == 0 { server.hello() } else { server.greeted().expect("in") };
        client.send(&bytes);
        client.is_hung_up_on();
    }
}

fn unknown_flags(server: &Server) {
    for flags in [0, 2, 4, 7, 1 << 16 | 3, u32::MAX] {
        let mut client = server.greeted().expect("a greeting");
        client.send(&flags.to_be_bytes());
        client.send(&option(LIST, b""));
        client.is_hung_up_on();
    }
}

/// An option is refused, and the client may go on.
#[track_caller]
fn refused(server: &Server, number: u32, data: &[u8], with: u32) {
    let mut client = server.hello();
    client.send(&option(STRUCTURED, b""));
    assert_eq!(client.option_reply(STRUCTURED), ACK);
    client.send(&option(number, data));
    assert_eq!(client.option_reply(number), with);
    client.go();
}

fn long_option(server: &Server) {
    let unknown = 77;
    refused(server, unknown, &vec![0; 64 << 10], UNSUPPORTED);
    let mut client = server.hello();
    client.send(&option(unknown, &vec![0; (64 << 10) + 1]));
    client.is_hung_up_on();
}

#[track_caller]
fn is_handshake_time(took: Duration) {
    assert!(took + Duration::from_secs(1) > HANDSHAKE && took < HANDSHAKE + LATE, "{took:?}");
}

/// Says something all the time, and never enough.
fn byte_by_byte(server: &Server) {
    let start = Instant::now();
    let mut client = server.greeted().expect("a greeting");
    client.0.set_read_timeout(Some(Duration::from_millis(200))).expect("a time");
    let words = [vec![0, 0, 0, 3], option(GO, &[0; 4096])].concat();
    for byte in words {
        client.send(&[byte]);
        match client.hear(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) => break,
            other => panic!("half an option was answered: {other:?}"),
        }
    }
    is_handshake_time(start.elapsed());
}

/// Asks what there is over and over.
fn without_end(server: &Server) {
    let start = Instant::now();
    let mut client = server.hello();
    let mut answer = [0; 4096];
    while client.send(&option(LIST, b"")) && client.hear(&mut answer).expect("an answer") > 0 {
        assert!(start.elapsed() < PATIENCE, "it may ask for ever");
    }
    is_handshake_time(start.elapsed());
}

fn half_tls(server: &Server) {
    let start = Instant::now();
    let mut client = server.hello();
    client.send(&option(STARTTLS, b""));
    assert_eq!(client.option_reply(STARTTLS), ACK);
    // The first bytes of a client's hello.
    client.send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    is_handshake_time(client.until_hung_up_on(start));
}

fn in_the_clear(server: &Server) {
    for number in [LIST, INFO, GO, STRUCTURED, SET_META] {
        let mut client = server.hello();
        client.send(&option(number, &[]));
        let kind = client.option_reply(number);
        // What is malformed besides is not looked at.
        assert_eq!(kind, TLS_REQUIRED, "option {number}");
    }
    let mut client = server.hello();
    client.send(&option(EXPORT_NAME, b""));
    client.is_hung_up_on();
}

/// A dialogue that is sound as long as it goes on. Half a write is none.
fn end_at_every_byte(server: &Server) {
    let contexts = [string(b""), vec![0, 0, 0, 1], string(b"base:allocation")].concat();
    let options = [option(EXTENDED, b""), option(SET_META, &contexts), option(GO, &[0; 6])];
    let requests = [extended(0, STATUS, 0, 1 << 30), extended(1, FLUSH, 0, 0)];
    let words = [vec![0, 0, 0, 3], options.concat(), requests.concat()].concat();
    for len in 0..=words.len() {
        server.greeted().expect("a greeting").send(&words[..len]);
    }
    let write = [request(0, WRITE, 0, 3), b"abc".to_vec()].concat();
    for len in 0..write.len() {
        server.transmitting().send(&write[..len]);
    }
    let mut client = server.transmitting();
    client.send(&request(0, READ, 0, 3));
    assert_eq!((client.simple(), client.take(3)), (0, Some(vec![0; 3])));
}
