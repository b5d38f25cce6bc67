//! The vhost-user-blk server, by a frontend that is not ours and drivers that write rings.

mod direct;
mod frontends;
mod hostile;
pub(crate) mod machine;
mod migration;
mod requests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qed_export::server::{
    Closed, Counters, Export, Exports, Listener, ProtocolServer as _, ServerHandle, Service,
    ServiceError, StopHandle,
};
use qed_export::vhost::{Server, VhostOptions};
use qed_export::{BlockDevice, BlockSizes, DeviceError, Durability, Extent, Shrink, Zeroing};
use tempfile::TempDir;

use crate::client::qed_disk;

/// A server in this process.
struct Running {
    _folder: TempDir,
    path: PathBuf,
    stop: StopHandle,
    counters: Arc<Counters>,
    handle: Arc<dyn ServerHandle>,
    export: Arc<Export>,
    thread: JoinHandle<Result<Closed, ServiceError>>,
}

impl Running {
    fn start(disk: Arc<dyn BlockDevice>) -> Self {
        let options = VhostOptions {
            queues: 4,
            serial: "serial-of-the-disk-0123456789".to_owned(),
            ..VhostOptions::default()
        };
        Self::with(disk, options)
    }

    fn with(disk: Arc<dyn BlockDevice>, options: VhostOptions) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("s");
        let listener = Listener::unix(&path).expect("it listens");
        let exports = Exports::new(vec![Export::new(*b"disk", disk)]).expect("a name");
        let export = Arc::clone(exports.only().expect("one"));
        let mut service = Service::new(exports);
        let server = Server::new(Arc::clone(&export), vec![listener], options).expect("a server");
        let (stop, counters) = (service.stop_handle(), server.counters().expect("it counts"));
        let handle = server.handle();
        service.add(server);
        let thread = std::thread::spawn(move || service.run(Duration::from_secs(30)));
        Self { _folder: folder, path, stop, counters, handle, export, thread }
    }

    fn end(self) {
        self.stop.stop();
        self.thread.join().expect("no panic").expect("it ends well");
    }
}

/// A disk that counts its flushes, and changes its size when it is told to.
#[derive(Debug)]
struct Counting {
    disk: Arc<dyn BlockDevice>,
    flushes: AtomicUsize,
    is_small: AtomicBool,
}

impl Counting {
    fn new() -> Arc<Self> {
        let (flushes, is_small) = Default::default();
        Arc::new(Self { disk: qed_disk(), flushes, is_small })
    }

    /// Flushes since this was last called.
    fn flushes(&self) -> usize {
        self.flushes.swap(0, Ordering::SeqCst)
    }
}

impl BlockDevice for Counting {
    fn size(&self) -> u64 {
        let size = self.disk.size();
        if self.is_small.load(Ordering::SeqCst) { size / 2 } else { size }
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn block_sizes(&self) -> BlockSizes {
        self.disk.block_sizes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        self.disk.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64, durability: Durability) -> Result<(), DeviceError> {
        self.disk.write_at(buf, at, durability)
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError> {
        self.disk.write_zeroes(at, len, how)
    }

    fn trim(&self, at: u64, len: u64, durability: Durability) -> Result<(), DeviceError> {
        self.disk.trim(at, len, durability)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.disk.flush()
    }

    fn resize(&self, _new_size: u64, _shrink: Shrink) -> Result<(), DeviceError> {
        self.is_small.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        self.disk.extent_at(at, max_len)
    }

    fn maintain(&self, _now: Instant) -> Result<Option<Instant>, DeviceError> {
        Ok(None)
    }

    fn close(&self) -> Result<(), DeviceError> {
        self.disk.close()
    }
}
