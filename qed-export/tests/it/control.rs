//! The control socket of a service: its dialogue, its limits, and what servers are told.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qed_export::server::{
    Closed, DiskEvent, Export, Exports, Listener, ProtocolError, ProtocolServer, ServerHandle,
    Service, ServiceError,
};
use qed_export::{BlockDevice, Durability};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{SIZE, qed_disk, raw_disk, two_exports};
use crate::hooked::{Call, disk_for_hand_over, disk_that_panics, disk_that_stalls_flushes};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Controlled {
    _folder: TempDir,
    path: PathBuf,
    thread: JoinHandle<Result<Closed, ServiceError>>,
}

impl Controlled {
    fn start(exports: Exports) -> Self {
        Self::serve(Service::new(exports))
    }

    fn of(disk: Arc<dyn BlockDevice>) -> Self {
        Self::start(Exports::new(vec![Export::new(*b"", disk)]).expect("a name"))
    }

    fn serve(mut service: Service) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("c");
        service.add_control(Listener::unix(&path).expect("it listens")).expect("descriptors");
        let thread = std::thread::spawn(move || service.run(PATIENCE));
        Self { _folder: folder, path, thread }
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.path).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time");
        Client(BufReader::new(stream))
    }

    /// Waits for the end that somebody asked for.
    fn ended(self) -> Result<Closed, ServiceError> {
        let ended = self.thread.join().expect("no panic");
        assert!(!self.path.exists(), "the socket is gone");
        ended
    }

    fn quit(self) {
        assert_eq!(self.connect().ask(&json!({"cmd": "quit"})), json!({"ok": true}));
        assert_eq!(self.ended().expect("closed well"), Closed);
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn say(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("sent");
    }

    /// The next answer; none if the server has hung up.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => None,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            read => {
                read.expect("an answer");
                assert!(line.ends_with('\n'), "an answer is a line: {line}");
                Some(serde_json::from_str(&line).expect("an answer is JSON"))
            }
        }
    }

    #[track_caller]
    fn ask(&mut self, request: &Value) -> Value {
        self.say(format!("{request}\n").as_bytes());
        self.hear().expect("an answer")
    }

    #[track_caller]
    fn is_refused(&mut self, request: &Value, rule: &str) {
        let answer = self.ask(request);
        assert_eq!(answer["ok"], false, "{request}: {answer}");
        let error = answer["error"].as_str().expect("a text");
        assert!(error.contains(rule), "{request}: {error}");
        assert_eq!(answer.as_object().expect("an object").len(), 2, "{answer}");
    }
}

#[test]
fn a_service_is_asked_and_told_a_line_each() {
    let disk = qed_disk();
    let service = Controlled::of(Arc::clone(&disk));
    let mode = std::fs::metadata(&service.path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only for this user");
    let mut client = service.connect();
    disk.write_at(&[7; 200_000], 0, Durability::AfterFlush).expect("written");
    assert_eq!(client.ask(&json!({"cmd": "flush"})), json!({"ok": true}));
    let status = client.ask(&json!({"cmd": "status"}));
    assert_eq!(status["ok"], true);
    assert_eq!(status["servers"], json!([]));
    let export = &status["exports"][0];
    assert_eq!((&export["export"], &export["state"]), (&json!(""), &json!("active")));
    assert_eq!((&export["size"], &export["read_only"]), (&json!(SIZE), &json!(false)));
    assert!(export["space"]["end"].as_u64() >= Some(200_000), "{status}");
    let checked = client.ask(&json!({"cmd": "check"}));
    assert_eq!((&checked["ok"], &checked["findings"]), (&json!(true), &json!([])));
    assert!(checked["space"]["free"].is_u64(), "a sweep knows what is free: {checked}");
    // Two requests in one piece, and one in several.
    client.say(b"{\"cmd\":\"flush\"}\n{\"cmd\":\"che");
    assert_eq!(client.hear(), Some(json!({"ok": true})));
    client.say(b"ck\"}\n");
    assert_eq!(client.hear().expect("an answer")["ok"], true);
    service.quit();
}

#[test]
fn a_disk_grows_under_its_servers_and_shrinks_where_that_is_asked_for() {
    for disk in [qed_disk(), raw_disk()] {
        let (server, told) = recorder();
        let mut service =
            Service::new(Exports::new(vec![Export::new(*b"", disk.clone())]).expect("a name"));
        service.add(server);
        let service = Controlled::serve(service);
        let mut client = service.connect();
        let grown = SIZE + (1 << 20);
        let answer = client.ask(&json!({"cmd": "resize", "size": grown}));
        assert_eq!(answer, json!({"ok": true, "size": grown}));
        assert_eq!(told.recv_timeout(PATIENCE).expect("told"), grown);
        disk.write_at(&[1; 512], grown - 512, Durability::AtReturn).expect("it is there");
        let same = client.ask(&json!({"cmd": "resize", "size": grown}));
        assert_eq!(same["ok"], true, "the size that it has");
        client.is_refused(&json!({"cmd": "resize", "size": grown + 1}), "512");
        client.is_refused(&json!({"cmd": "resize", "size": SIZE}), "shrink");
        assert_eq!(disk.size(), grown);
        let shrunk = client.ask(&json!({"cmd": "resize", "size": SIZE, "shrink": true}));
        if shrunk["ok"] == true {
            assert_eq!(told.recv_timeout(PATIENCE).expect("told"), SIZE);
        } else {
            assert!(shrunk["error"].as_str().is_some_and(|text| text.contains("raw")), "{shrunk}");
        }
        assert_eq!(told.try_recv().ok(), None, "nothing else changed the size");
        service.quit();
    }
}

#[test]
fn images_are_compacted_when_that_is_asked_for() {
    let (sender, events) = channel();
    let exports = vec![Export::new(*b"a", qed_disk()), Export::new(*b"b", raw_disk())];
    let service = Service::new(Exports::new(exports).expect("two names"));
    let service = Controlled::serve(service.watched_by(move |export, event| {
        if let DiskEvent::Compacted(ended) = event {
            drop(sender.send((export.to_vec(), ended.is_ok())));
        }
    }));
    let mut client = service.connect();
    let compact = |export| json!({"cmd": "compact", "export": export});
    assert_eq!(client.ask(&compact("a")), json!({"ok": true}));
    assert_eq!(events.recv_timeout(PATIENCE), Ok((b"a".to_vec(), true)));
    client.is_refused(&compact("b"), "nothing that can be moved");
    service.quit();
    assert!(events.try_recv().is_err(), "once, and only what was named");
}

#[test]
fn of_several_exports_one_is_named() {
    let service = Controlled::start(two_exports());
    let mut client = service.connect();
    for command in ["flush", "check", "deactivate", "activate", "compact"] {
        client.is_refused(&json!({"cmd": command}), "name an 'export'");
    }
    client.is_refused(&json!({"cmd": "flush", "export": "c"}), "there is no export 'c'");
    assert_eq!(client.ask(&json!({"cmd": "flush", "export": "b"})), json!({"ok": true}));
    let names = |status: &Value| {
        let exports = status["exports"].as_array().expect("a list").iter();
        exports.map(|export| export["export"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&client.ask(&json!({"cmd": "status"}))), ["a", "b"]);
    assert_eq!(names(&client.ask(&json!({"cmd": "status", "export": "b"}))), ["b"]);
    service.quit();
    let bytes = |name: &[u8]| Export::new(name, raw_disk());
    let alike = Exports::new(vec![bytes(b"\xfe"), bytes(b"\xff")]).expect("two names");
    let service = Controlled::start(alike);
    service.connect().is_refused(&json!({"cmd": "flush", "export": "\u{fffd}"}), "several exports");
    service.quit();
}

#[test]
fn a_disk_that_was_not_opened_for_hand_over_is_not_handed_over() {
    let service = Controlled::of(qed_disk());
    let mut client = service.connect();
    client.is_refused(&json!({"cmd": "activate", "take_over": true}), "not opened for hand-over");
    client.is_refused(&json!({"cmd": "deactivate"}), "not opened for hand-over");
    assert_eq!(client.ask(&json!({"cmd": "status"}))["exports"][0]["state"], "active");
    service.quit();
}

#[test]
fn a_disk_is_taken_over_and_handed_over() {
    let (server, told) = recorder();
    let export = Export::new(*b"", disk_for_hand_over());
    let mut service = Service::new(Exports::new(vec![export]).expect("a name"));
    service.add(server);
    let service = Controlled::serve(service);
    let mut client = service.connect();
    let mut state = |request: Value, want: &str| {
        let answer = client.ask(&request);
        assert_eq!(answer["ok"], true, "{request}: {answer}");
        assert_eq!(client.ask(&json!({"cmd": "status"}))["exports"][0]["state"], want);
    };
    state(json!({"cmd": "flush"}), "inactive");
    state(json!({"cmd": "activate", "take_over": true}), "active");
    assert_eq!(told.recv_timeout(PATIENCE).expect("told"), SIZE, "it was longer than thought");
    state(json!({"cmd": "deactivate"}), "ended");
    client.is_refused(&json!({"cmd": "activate"}), "another owns it");
    service.quit();
}

#[test]
fn what_is_no_request_is_refused_and_hurts_nobody() {
    let service = Controlled::of(raw_disk());
    let mut client = service.connect();
    for line in [&b""[..], b"\0\xff", b"[1]", br#"{"cmd":"format"}"#, b"{\"cmd\":\"quit\",\"x\":1}"]
    {
        client.say(line);
        client.say(b"\n");
        let answer = client.hear().expect("an answer");
        assert_eq!(answer["ok"], false, "{line:?}: {answer}");
    }
    assert_eq!(client.ask(&json!({"cmd": "flush"}))["ok"], true, "it is heard still");
    // A line without an end is given up at its limit, however slowly it comes.
    let mut endless = service.connect();
    endless.say(&vec![b' '; (64 << 10) + 1]);
    let answer = endless.hear().expect("an answer");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("65536 bytes")), "{answer}");
    assert_eq!(endless.hear(), None, "it is hung up on");
    let long = json!({"cmd": "flush", "export": "x".repeat((64 << 10) - 100)});
    client.is_refused(&long, "there is no export");
    // One that leaves in the middle of a line has asked for nothing.
    service.connect().say(br#"{"cmd":"quit"}"#);
    assert_eq!(client.ask(&json!({"cmd": "flush"}))["ok"], true);
    service.quit();
}

#[test]
fn more_clients_than_there_may_be_are_turned_away() {
    let service = Controlled::of(raw_disk());
    let flush = json!({"cmd": "flush"});
    let mut clients: Vec<_> = (0..8).map(|_| service.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(&flush)["ok"], true));
    assert_eq!(service.connect().hear(), None);
    clients.truncate(7);
    let start = Instant::now();
    let mut another = loop {
        let mut another = service.connect();
        if another.0.get_mut().write_all(b"{\"cmd\":\"flush\"}\n").is_ok()
            && another.hear().is_some()
        {
            break another;
        }
        assert!(start.elapsed() < PATIENCE, "the place is not free");
    };
    // Whether those that left have a place still, nobody knows.
    assert_eq!(another.ask(&json!({"cmd": "quit"})), json!({"ok": true}));
    assert_eq!(service.ended().expect("closed well"), Closed);
}

#[test]
fn a_request_that_takes_long_holds_up_no_other_client() {
    let (disk, stall) = disk_that_stalls_flushes();
    let service = Controlled::of(disk);
    let (mut slow, mut quick) = (service.connect(), service.connect());
    slow.say(b"{\"cmd\":\"flush\"}\n");
    stall.wait_until_reached();
    assert_eq!(quick.ask(&json!({"cmd": "status"}))["ok"], true);
    stall.let_go();
    assert_eq!(slow.hear(), Some(json!({"ok": true})));
    service.quit();
}

#[test]
fn clients_that_never_read_or_never_ask_do_not_keep_the_service() {
    let service = Controlled::of(raw_disk());
    let _silent = service.connect();
    let mut deaf = service.connect();
    deaf.0.get_mut().set_write_timeout(Some(Duration::from_millis(200))).expect("a time");
    let many = b"{\"cmd\":\"status\"}\n".repeat(1000);
    // Until the service waits for it to take an answer.
    while deaf.0.get_mut().write_all(&many).is_ok() {}
    let Controlled { _folder, path, thread } = service;
    drop(UnixStream::connect(&path).expect("connected").write_all(b"{\"cmd\":\"quit\"}\n"));
    drop(deaf);
    assert_eq!(thread.join().expect("no panic").expect("closed well"), Closed);
}

#[test]
fn a_disk_that_panics_is_told_of_and_closed() {
    let closed = Arc::<AtomicUsize>::default();
    let service = Controlled::of(disk_that_panics(Call::Flush, &closed));
    service.connect().is_refused(&json!({"cmd": "flush"}), "a bug: it panicked");
    service.quit();
    assert_eq!(closed.load(Ordering::Relaxed), 1);
}

/// A server that records which sizes it is told of, and ends when it is stopped.
#[derive(Debug)]
struct Recorder {
    handle: Arc<Recording>,
    stopped: Receiver<()>,
}

#[derive(Debug)]
struct Recording {
    sizes: Mutex<Sender<u64>>,
    stop: Sender<()>,
}

fn recorder() -> (Recorder, Receiver<u64>) {
    let (sizes, told) = channel();
    let (stop, stopped) = channel();
    (Recorder { handle: Arc::new(Recording { sizes: Mutex::new(sizes), stop }), stopped }, told)
}

impl ProtocolServer for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn handle(&self) -> Arc<dyn ServerHandle> {
        self.handle.clone()
    }

    fn run(self: Box<Self>) -> Result<(), ProtocolError> {
        Ok(self.stopped.recv()?)
    }
}

impl ServerHandle for Recording {
    fn stop(&self, _deadline: Instant) -> io::Result<()> {
        self.stop.send(()).map_err(io::Error::other)
    }

    fn resized(&self, export: &Export) {
        let sizes = self.sizes.lock().expect("no panic");
        sizes.send(export.device().size()).expect("somebody listens");
    }
}
