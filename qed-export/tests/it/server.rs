//! The server with sockets and threads: its limits, and its end whatever clients do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qed_export::nbd::{Limits, Server};
use qed_export::server::{
    Closed, Counters, Export, Exports, ListenError, Listener, ProtocolServer as _, Service,
    ServiceError, StopHandle,
};
use tempfile::TempDir;

use crate::client::{Words, raw_disk, two_exports};
use crate::hooked::{Call, disk_that_panics, disk_that_stalls};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long requests may go on when a server ends.
const DRAIN: Duration = Duration::from_secs(30);
/// A request of so many bytes is worth a thread of its own.
const LONG: u32 = 256 << 10;

struct Running {
    _folder: TempDir,
    path: PathBuf,
    stop: StopHandle,
    counters: Arc<Counters>,
    thread: JoinHandle<Result<Closed, ServiceError>>,
}

impl Running {
    fn start(limits: Limits) -> Self {
        Self::serve(two_exports(), limits)
    }

    fn serve(exports: Exports, limits: Limits) -> Self {
        Self::draining_for(DRAIN, exports, limits)
    }

    fn draining_for(drain: Duration, exports: Exports, limits: Limits) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("s");
        let listener = Listener::unix(&path).expect("it listens");
        let mut service = Service::new(exports.clone());
        let server = Server::new(exports, vec![listener], limits, None).expect("a server");
        let (stop, counters) = (service.stop_handle(), server.counters().expect("it counts"));
        service.add(server);
        let thread = std::thread::spawn(move || service.run(drain));
        Self { _folder: folder, path, stop, counters, thread }
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(&self.path).expect("connected");
        client.set_read_timeout(Some(PATIENCE)).expect("a time");
        client.set_write_timeout(Some(PATIENCE)).expect("a time");
        client
    }

    /// A client that has heard the greeting; none if it was turned away.
    fn greeted(&self) -> Option<UnixStream> {
        let mut client = self.connect();
        client.read_exact(&mut [0; 18]).ok().map(|()| client)
    }

    fn end(self) {
        assert_eq!(self.ended().expect("closed well"), Closed);
    }

    /// How it ended when it was told to, which it has to in its time.
    #[track_caller]
    fn ended(self) -> Result<Closed, ServiceError> {
        self.stop.stop();
        let start = Instant::now();
        while !self.thread.is_finished() {
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::yield_now();
        }
        let ended = self.thread.join().expect("no panic");
        let counts = self.counters.snapshot();
        assert_eq!(counts.connected, 0, "{counts:?}");
        assert!(!self.path.exists(), "the socket is gone");
        ended
    }
}

/// Reads until the server closes the connection.
fn hear_the_end(client: &mut UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset says the same.
    drop(client.read_to_end(&mut said));
    said
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let handshake = Duration::from_millis(200);
    let running = Running::start(Limits { handshake, ..Limits::default() });
    let mut silent = running.greeted().expect("greeted");
    let mut busy = running.greeted().expect("greeted");
    // Its own pace, and never an end: one deadline for all of it.
    let start = Instant::now();
    busy.write_all(&Words::hello().0).expect("sent");
    let list = Words::default().option(3, b"").0;
    let mut buf = [0; 4096];
    while busy.write_all(&list).is_ok() && busy.read(&mut buf).is_ok_and(|read| read > 0) {
        assert!(start.elapsed() < PATIENCE, "it may go on for ever");
    }
    assert!(start.elapsed() >= handshake / 2);
    assert_eq!(hear_the_end(&mut silent), b"");
    // Who has a disk may be silent as long as it likes.
    let mut served = running.greeted().expect("greeted");
    served.write_all(&Words::hello().go("a").0).expect("sent");
    served.set_read_timeout(Some(2 * handshake)).expect("a time");
    let mut said = Vec::new();
    let error = served.read_to_end(&mut said).expect_err("still connected");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    running.end();
}

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let running = Running::start(Limits { connections: 2, ..Limits::default() });
    let first = running.greeted().expect("greeted");
    let _second = running.greeted().expect("greeted");
    assert!(running.greeted().is_none());
    assert_eq!(running.counters.snapshot().turned_away, 1);
    drop(first);
    // The place is free as soon as the server has seen that its client is gone.
    let start = Instant::now();
    while running.greeted().is_none() {
        assert!(start.elapsed() < PATIENCE);
    }
    running.end();
}

#[test]
fn a_client_that_never_reads_does_not_keep_the_server() {
    let drain = Duration::from_millis(100);
    let running = Running::draining_for(drain, two_exports(), Limits::default());
    let mut client = running.connect();
    let mut words = Words::hello().go("a");
    for _ in 0..64 {
        words = words.request(0, 0, 0, 1 << 20);
    }
    client.write_all(&words.0).expect("sent");
    // The first answers are under way, and nobody takes them.
    let start = Instant::now();
    while running.counters.snapshot().requests == 0 {
        assert!(start.elapsed() < PATIENCE);
        client.read_exact(&mut [0; 1]).expect("answers");
    }
    running.end();
}

#[test]
fn requests_in_flight_are_answered_once_each() {
    let running = Running::start(Limits::default());
    let mut client = running.connect();
    let mut words = Words::hello().go("b");
    for index in 0..1000 {
        let flush_or_write = if index % 10 == 0 { (3, 0, 0) } else { (1, index * 512, 512) };
        let (command, at, len) = flush_or_write;
        words = words.request(0, command, at, len);
        words = words.bytes(&vec![7; len as usize]);
    }
    let mut writer = client.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        writer.write_all(&words.request(0, 2, 0, 0).0).expect("sent");
    });
    let said = hear_the_end(&mut client);
    sender.join().expect("sent");
    let magic = 0x6744_6698_u32.to_be_bytes();
    let replies = said.windows(4).filter(|window| **window == magic).count();
    assert_eq!(replies, 1000);
    let counts = running.counters.snapshot();
    assert_eq!((counts.requests, counts.refused, counts.bytes_written), (1000, 0, 900 * 512));
    running.end();
}

#[test]
fn while_a_long_request_waits_for_its_disk_others_are_served() {
    const READ: u16 = 0;
    const WRITE: u16 = 1;
    let payload = |command, len: u32| vec![7; if command == WRITE { len as usize } else { 0 }];
    for (long, short) in [(READ, WRITE), (WRITE, READ)] {
        let (disk, stall) = disk_that_stalls(LONG);
        let exports = Exports::new(vec![Export::new(*b"a", disk)]).expect("a name");
        let running = Running::serve(exports, Limits::default());
        let mut client = running.connect();
        let words = Words::hello().go("a").request(0, long, 0, LONG).bytes(&payload(long, LONG));
        client.write_all(&words.0).expect("sent");
        // Only now, so that nothing lies behind the long request while it is read.
        stall.wait_until_reached();
        let words = Words::default().request(0, short, 0, 512).bytes(&payload(short, 512));
        client.write_all(&words.0).expect("sent");
        let start = Instant::now();
        while running.counters.snapshot().requests == 0 {
            assert!(start.elapsed() < PATIENCE, "the short request waits for the long one");
        }
        stall.let_go();
        client.write_all(&Words::default().request(0, 2, 0, 0).0).expect("sent");
        hear_the_end(&mut client);
        assert_eq!(running.counters.snapshot().requests, 2);
        running.end();
    }
}

#[test]
fn a_client_that_sends_before_it_reads_is_heard() {
    // Replies that a socket does not take while nobody reads them, and one that waits for another.
    for reads in [&[LONG - 1][..], &[100 << 10; 3], &[1 << 20, 512]] {
        let running = Running::start(Limits::default());
        let mut client = running.connect();
        client.write_all(&Words::hello().go("b").0).expect("sent");
        let start = Instant::now();
        for (index, len) in reads.iter().enumerate() {
            client.write_all(&Words::default().request(0, 0, 0, *len).0).expect("sent");
            // Nothing lies behind it when it is read.
            while running.counters.snapshot().requests <= index as u64 {
                assert!(start.elapsed() < PATIENCE, "{reads:?}: request {index} is not read");
            }
        }
        let words = Words::default().request(0, 1, 0, 1 << 20).bytes(&[7; 1 << 20]);
        client.write_all(&words.request(0, 2, 0, 0).0).expect("it is heard");
        hear_the_end(&mut client);
        assert_eq!(running.counters.snapshot().bytes_written, 1 << 20, "{reads:?}");
        running.end();
    }
}

/// A server of a disk "a" that panics and one "b" that does not, and how often disks were closed.
fn panicking(call: Call) -> (Running, Arc<AtomicUsize>) {
    let closed = Arc::default();
    let disk = disk_that_panics(call, &closed);
    let exports = vec![Export::new(*b"a", disk), Export::new(*b"b", raw_disk())];
    (Running::serve(Exports::new(exports).expect("two names"), Limits::default()), closed)
}

#[test]
fn a_request_that_panics_ends_its_connection_and_nothing_else() {
    // One that the thread serves which reads, and one that is served while another reads.
    for len in [512, LONG] {
        let (running, closed) = panicking(Call::Read(len as usize));
        let mut other = running.connect();
        other.write_all(&Words::hello().go("a").request(0, 0, 0, 4096).0).expect("sent");
        let mut client = running.connect();
        // A long request before it, so that the connection has threads that wait.
        let words = Words::hello().go("a").request(0, 0, 0, 2 * LONG).request(0, 0, 0, len);
        client.write_all(&words.0).expect("sent");
        hear_the_end(&mut client);
        let start = Instant::now();
        while running.counters.snapshot().connected > 1 {
            assert!(start.elapsed() < PATIENCE, "{len}: the connection is there still");
        }
        other.write_all(&Words::default().request(0, 2, 0, 0).0).expect("it is served still");
        assert!(hear_the_end(&mut other).len() > 4096, "{len}");
        running.end();
        assert_eq!(closed.load(Ordering::Relaxed), 1, "{len}");
    }
}

#[test]
fn a_disk_that_panics_in_a_handshake_or_its_maintenance_is_closed() {
    for call in [Call::Size, Call::Maintain] {
        let (running, closed) = panicking(call);
        let mut client = running.connect();
        client.write_all(&Words::hello().go("a").request(0, 2, 0, 0).0).expect("sent");
        hear_the_end(&mut client);
        let mut other = running.connect();
        other.write_all(&Words::hello().go("b").request(0, 2, 0, 0).0).expect("sent");
        assert!(hear_the_end(&mut other).len() > 18, "{call:?}");
        running.end();
        assert_eq!(closed.load(Ordering::Relaxed), 1, "{call:?}");
    }
}

#[test]
fn a_disk_that_panics_when_it_is_closed_does_not_keep_another_from_it() {
    let closed = Arc::default();
    let disk = |call| disk_that_panics(call, &closed);
    let exports = vec![
        Export::new(*b"a", disk(Call::Close)),
        Export::new(*b"b", disk(Call::Read(usize::MAX))),
    ];
    let running = Running::serve(Exports::new(exports).expect("two names"), Limits::default());
    let error = running.ended().expect_err("one was not closed well");
    assert!(matches!(&error, ServiceError::Close { name, .. } if name == "a"), "{error}");
    assert_eq!(closed.load(Ordering::Relaxed), 2);
}

#[test]
fn every_socket_is_one_that_clients_can_connect_to() {
    const MOST: usize = 107;
    let folder = TempDir::new().expect("a folder");
    let used = folder.path().as_os_str().len() + "/".len() + "/s".len();
    let deep = folder.path().join("d".repeat(MOST - used));
    std::fs::create_dir(&deep).expect("a folder");
    let longest = deep.join("s");
    assert_eq!(longest.as_os_str().len(), MOST);
    let listener = Listener::unix(&longest).expect("it listens");
    UnixStream::connect(&longest).expect("a client");
    drop(listener);
    for path in [deep.join("ss"), folder.path().join("s".repeat(MOST))] {
        let refused = Listener::unix(&path).expect_err("no client could connect");
        assert!(matches!(refused, ListenError::TooLong { .. }), "{refused}");
    }
    assert_eq!(std::fs::read_dir(&deep).expect("the folder").count(), 0, "nothing is left");
}
