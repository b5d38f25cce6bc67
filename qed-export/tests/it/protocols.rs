//! One disk over every protocol at once: NBD, vhost-user, a file, and what the service says of it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use qed_core::{
    CreateOptions, Image, LockPolicy, ReadContext, ReadOnlyImage, RecoveryPolicy, RefuseBacking,
    VirtualDisk, WriteContext, create,
};
use qed_export::QedDisk;
use qed_export::fuse::{Mount, MountOptions};
use qed_export::nbd;
use qed_export::server::{Closed, Export, Exports, Listener, Service, ServiceError};
use qed_export::vhost::{self, VhostOptions};
use qed_io::{MemoryStorage, Storage};
use tempfile::TempDir;

use crate::client::{Answers, GO, SIZE, Words};
use crate::vhost::machine::{Ask, Board, Machine};

/// Bytes that a client writes at a time.
const PIECE: usize = PIECE_BYTES as usize;
const PIECE_BYTES: u32 = 4096;
/// Where each client writes.
const AREA: u64 = 256 << 10;
const OK: u8 = 0;

/// A client of one protocol.
trait Client {
    fn write(&mut self, at: u64, bytes: &[u8]);
    fn read(&mut self, at: u64) -> Vec<u8>;
    fn flush(&mut self);
    fn size(&mut self) -> u64;
}

struct Nbd(std::path::PathBuf);

impl Nbd {
    /// Says it on a connection of its own, and what is answered behind the handshake; the size of the disk
    /// as the handshake tells it.
    fn say(&self, words: impl FnOnce(Words) -> Words) -> (Answers, u64) {
        let mut stream = UnixStream::connect(&self.0).expect("it listens");
        let words = words(Words::hello().go(""));
        stream.write_all(&words.request(0, 2, 0, 0).0).expect("sent");
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("answers");
        let mut answers = Answers(said.split_off(18));
        let told = answers.option_ends(GO, 1);
        let (_, size) = told.iter().find(|(_, data)| data.starts_with(&[0, 0])).expect("a size");
        let size = u64::from_be_bytes(size[2..10].try_into().expect("eight bytes"));
        (answers, size)
    }
}

impl Client for Nbd {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("short");
        let (mut answers, _) = self.say(|words| words.request(0, 1, at, len).bytes(bytes));
        assert_eq!(answers.simple(), 0);
    }

    fn read(&mut self, at: u64) -> Vec<u8> {
        let (mut answers, _) = self.say(|words| words.request(0, 0, at, PIECE_BYTES));
        assert_eq!(answers.simple(), 0);
        answers.0
    }

    fn flush(&mut self) {
        let (mut answers, _) = self.say(|words| words.request(0, 3, 0, 0));
        assert_eq!(answers.simple(), 0);
    }

    fn size(&mut self) -> u64 {
        self.say(|words| words).1
    }
}

impl Client for Machine {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        assert_eq!(self.ask(Ask::write(at / 512, bytes)).status, OK);
    }

    fn read(&mut self, at: u64) -> Vec<u8> {
        let got = self.ask(Ask::read(at / 512, PIECE_BYTES));
        assert_eq!(got.status, OK);
        got.data
    }

    fn flush(&mut self) {
        assert_eq!(self.ask(Ask::FLUSH).status, OK);
    }

    fn size(&mut self) -> u64 {
        self.sectors() * 512
    }
}

impl Client for File {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.write_all_at(bytes, at).expect("written");
    }

    fn read(&mut self, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; PIECE];
        self.read_exact_at(&mut bytes, at).expect("read");
        bytes
    }

    fn flush(&mut self) {
        self.sync_all().expect("flushed");
    }

    fn size(&mut self) -> u64 {
        self.metadata().expect("attributes").len()
    }
}

/// One image in memory, served over everything.
struct Served {
    folder: TempDir,
    storage: Arc<MemoryStorage>,
    thread: JoinHandle<Result<Closed, ServiceError>>,
    file: std::path::PathBuf,
}

impl Served {
    fn start() -> Self {
        let storage = Arc::new(MemoryStorage::default());
        create(&*storage, &CreateOptions::new(SIZE)).expect("an image");
        let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
        let image = Image::open(Arc::clone(&storage) as Arc<dyn Storage>, &context);
        let disk = Arc::new(QedDisk::new(image.expect("it opens")));
        let exports = Exports::new(vec![Export::new("", disk)]).expect("a name");
        let export = Arc::clone(exports.only().expect("one"));
        let folder = TempDir::new().expect("a folder");
        let listen = |name| Listener::unix(&folder.path().join(name)).expect("it listens");
        let mut service = Service::new(exports.clone());
        let limits = nbd::Limits::default();
        service.add(nbd::Server::new(exports, vec![listen("nbd")], limits, None).expect("NBD"));
        let options = VhostOptions::default();
        let server = vhost::Server::new(Arc::clone(&export), vec![listen("vhost")], options);
        service.add(server.expect("vhost-user"));
        let point = folder.path().join("m");
        std::fs::create_dir(&point).expect("a folder");
        let how = MountOptions { shared: true, growable: true, ..MountOptions::default() };
        let mount = Mount::new(&export, &point, how).expect("it is mounted");
        let file = mount.path().to_owned();
        service.add(mount);
        service.add_metrics(listen("metrics")).expect("descriptors");
        service.add_control(listen("control")).expect("descriptors");
        let thread = std::thread::spawn(move || service.run(Duration::from_secs(30)));
        Self { folder, storage, thread, file }
    }

    fn clients(&self) -> [Box<dyn Client>; 3] {
        let path = |name| self.folder.path().join(name);
        let file = OpenOptions::new().read(true).write(true).open(&self.file).expect("the file");
        let machine = Board::new(1, 128).plug(&path("vhost"), u64::MAX);
        [Box::new(Nbd(path("nbd"))), Box::new(machine), Box::new(file)]
    }

    /// Asks on the control socket.
    fn ask(&self, request: &str) -> serde_json::Value {
        let stream = UnixStream::connect(self.folder.path().join("control")).expect("it listens");
        { &stream }.write_all(format!("{request}\n").as_bytes()).expect("sent");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("an answer");
        let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(answer["ok"], true, "{request}: {answer}");
        answer
    }

    fn metrics(&self) -> String {
        let mut stream =
            UnixStream::connect(self.folder.path().join("metrics")).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("a page");
        page
    }

    /// What another process finds in the image, as if this one had been killed now.
    fn after_a_crash(&self, at: u64) -> Vec<u8> {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(self.storage.to_vec()));
        let context = ReadContext::new(&RefuseBacking, LockPolicy::None);
        let image = ReadOnlyImage::open(storage, &context).expect("it opens");
        let mut bytes = vec![0; PIECE];
        VirtualDisk::read_at(&image, &mut bytes, at).expect("read");
        bytes
    }
}

/// Whether there is FUSE, which CI has; a record where there is none.
fn has_fuse(test: &str) -> bool {
    if std::path::Path::new("/dev/fuse").exists() && rustix::process::geteuid().is_root() {
        return true;
    }
    let record = std::env::var_os("QED_SKIPPED").expect("this test needs root and /dev/fuse");
    let mut record = OpenOptions::new().append(true).create(true).open(record).expect("a record");
    writeln!(record, "{test}: needs root and /dev/fuse").expect("recorded");
    false
}

#[test]
fn every_protocol_shows_the_same_bytes_and_a_flush_on_one_covers_the_writes_of_all() {
    if !has_fuse("every_protocol_shows_the_same_bytes_and_a_flush_on_one_covers_the_writes_of_all")
    {
        return;
    }
    let served = Served::start();
    let mut clients = served.clients();
    let mut byte = 0;
    for round in 0..4_u64 {
        // A piece of its own in each area, so that each round allocates.
        let place = |area: usize| area as u64 * AREA + round * u64::from(PIECE_BYTES) * 16;
        let mut want = Vec::new();
        for (area, client) in clients.iter_mut().enumerate() {
            byte += 1;
            want.push(vec![byte; PIECE]);
            client.write(place(area), &want[area]);
        }
        for client in &mut clients {
            for (area, want) in want.iter().enumerate() {
                assert!(client.read(place(area)) == *want, "round {round}, area {area}");
            }
        }
        match usize::try_from(round) {
            Ok(flusher) if flusher < clients.len() => clients[flusher].flush(),
            _ => drop(served.ask(r#"{"cmd":"flush"}"#)),
        }
        for (area, want) in want.iter().enumerate() {
            assert!(served.after_a_crash(place(area)) == *want, "round {round}, area {area}");
        }
    }
    let page = served.metrics();
    for line in [
        "qed_nbd_requests_total{kind=\"write\"} 4",
        "qed_vhost_requests_total{kind=\"write\"} 4",
        "qed_fuse_requests_total{kind=\"write\"} 4",
        "qed_vhost_connected 1",
        "qed_fuse_connected 1",
        "qed_vhost_written_bytes_total 16384",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}: {page}");
    }
    let families: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let mut once = families.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(families.len(), once.len(), "each family is there once");
    let status = served.ask(r#"{"cmd":"status"}"#);
    let servers = status["servers"].as_array().expect("a list").iter();
    let names: Vec<_> = servers.map(|server| server["protocol"].clone()).collect();
    assert_eq!(names, ["nbd", "vhost", "fuse"]);
    drop(clients);
    served.ask(r#"{"cmd":"quit"}"#);
    assert_eq!(served.thread.join().expect("no panic").expect("closed well"), Closed);
    assert!(!served.folder.path().join("vhost").exists() && !served.file.exists());
}

#[test]
fn a_disk_that_grows_is_larger_over_every_protocol() {
    if !has_fuse("a_disk_that_grows_is_larger_over_every_protocol") {
        return;
    }
    let served = Served::start();
    let mut clients = served.clients();
    let mut sizes = || clients.iter_mut().map(|client| client.size()).collect::<Vec<_>>();
    assert_eq!(sizes(), [SIZE; 3]);
    let grown = 2 * SIZE;
    served.ask(&format!(r#"{{"cmd":"resize","size":{grown}}}"#));
    assert_eq!(sizes(), [grown; 3]);
    // As a program does it that writes past the end of the file.
    let file = OpenOptions::new().write(true).open(&served.file).expect("the file");
    file.set_len(3 * SIZE).expect("it grows");
    assert_eq!(sizes(), [3 * SIZE; 3]);
    let [_, machine, _] = &mut clients;
    machine.write(3 * SIZE - u64::from(PIECE_BYTES), &[7; PIECE]);
    drop((clients, file));
    served.ask(r#"{"cmd":"quit"}"#);
    assert_eq!(served.thread.join().expect("no panic").expect("closed well"), Closed);
}
