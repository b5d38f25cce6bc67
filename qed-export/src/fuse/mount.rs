//! A disk that is mounted: its threads, and how it ends. Knows no messages of the kernel.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};

use super::attributes::Attributes;
use super::disk_file::{DiskFile, FileOptions};
use super::filesystem::{DiskFilesystem, FILE_NAME};
use super::mount_point::{DEVICE, MountError, MountPoint, Place, Rights, Unmounted};
use crate::server::{Counters, Export, ProtocolError, ProtocolServer, RequestKind, ServerHandle};

/// What is counted.
const KINDS: &[RequestKind] = &[
    RequestKind::Read,
    RequestKind::Write,
    RequestKind::Flush,
    RequestKind::Trim,
    RequestKind::WriteZeroes,
    RequestKind::BlockStatus,
    RequestKind::Other,
];

/// How long nothing need happen.
const LONG: Duration = Duration::from_secs(3600);

/// How a disk is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountOptions {
    /// Nothing can be changed, as with a disk that is read-only.
    pub read_only: bool,
    /// Users other than the one who mounts may use the file, as far as its permissions say.
    pub allow_other: bool,
    /// The file can be made longer, and is by writes past its end.
    pub growable: bool,
    /// Others change the disk too, as the clients of another server: the kernel keeps no pages of the
    /// file, and `fallocate` allocates nothing.
    pub shared: bool,
    /// The kernel keeps no pages of the file.
    pub direct: bool,
    /// Requests that are served at a time.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            allow_other: false,
            growable: false,
            shared: false,
            direct: false,
            threads: 4,
        }
    }
}

/// A disk that is mounted, and served once this runs: who uses the file before waits for that. Taken away
/// when it is dropped.
#[derive(Debug)]
pub struct Mount {
    mounted: Mounted,
    session: Session<DiskFilesystem>,
    file: Arc<DiskFile>,
    path: PathBuf,
    counters: Arc<Counters>,
    handle: Arc<Handle>,
    events: Receiver<Event>,
}

/// What happens to a mount.
#[derive(Debug)]
enum Event {
    /// It is to end by then.
    Stop(Instant),
    /// It has gone.
    Gone(io::Result<()>),
}

/// Reaches a mount from other threads.
#[derive(Debug)]
struct Handle {
    events: Sender<Event>,
    /// None once the mount has gone.
    notifier: Mutex<Option<Notifier>>,
    inode: INodeNo,
}

impl Mount {
    /// Mounts the disk of an export: in the place of a file, which then shows the disk, or as the file
    /// `disk` of a folder.
    ///
    /// # Errors
    /// No FUSE, a mount point that is dead or no place for a file, or what else the system says.
    pub fn new(export: &Arc<Export>, at: &Path, how: MountOptions) -> Result<Self, MountError> {
        let place = Place::at(at)?;
        let is_file = place.is_file();
        let read_only = how.read_only || export.device().is_read_only();
        let file_options = FileOptions { is_growable: how.growable, is_shared: how.shared };
        let file = Arc::new(DiskFile::new(export, file_options));
        let counters = Arc::new(Counters::new("fuse", KINDS));
        let filesystem = DiskFilesystem {
            file: Arc::clone(&file),
            export: Arc::clone(export),
            counters: Arc::clone(&counters),
            attributes: Attributes::new(read_only),
            is_file,
            is_direct: how.direct || how.shared,
        };
        let rights = Rights { read_only, allow_other: how.allow_other };
        let (point, device) = place.mount(rights)?;
        let mounted = Mounted(point);
        let mut config = Config::default();
        config.n_threads = Some(how.threads.max(1));
        // Only who may open the device can; the threads share one otherwise.
        config.clone_fd = OpenOptions::new().read(true).write(true).open(DEVICE).is_ok();
        // The kernel decides who may.
        let session = Session::from_fd(filesystem, device, SessionACL::All, config);
        let point = mounted.0.path();
        let session =
            session.map_err(|source| MountError::Refused { path: point.to_owned(), source })?;
        let path = if is_file { point.to_owned() } else { point.join(FILE_NAME) };
        let (sender, events) = channel();
        let notifier = Mutex::new(Some(session.notifier()));
        let inode = DiskFilesystem::inode(is_file);
        let handle = Arc::new(Handle { events: sender, notifier, inode });
        Ok(Self { mounted, session, file, path, counters, handle, events })
    }

    /// The file that shows the disk.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl ProtocolServer for Mount {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn counters(&self) -> Option<Arc<Counters>> {
        Some(Arc::clone(&self.counters))
    }

    fn handle(&self) -> Arc<dyn ServerHandle> {
        Arc::clone(&self.handle) as Arc<dyn ServerHandle>
    }

    /// Serves the file until it is unmounted, by whomever. Those who have it open when the time is up get
    /// errors from then on.
    fn run(self: Box<Self>) -> Result<(), ProtocolError> {
        let Self { mounted, session, file, counters, handle, events, .. } = *self;
        let _connected = counters.connect();
        let sender = handle.events.clone();
        let serve = move || {
            let ended = session.run();
            // Nobody listens who has not waited for the end.
            drop(sender.send(Event::Gone(ended)));
        };
        // It stays behind where the file is in use for too long, and ends with the process.
        Builder::new().name("fuse".to_owned()).spawn(serve)?;
        let ended = mounted.wait(&events);
        *handle.notifier() = None;
        file.gate.shut();
        Ok(ended?)
    }
}

impl Handle {
    fn notifier(&self) -> MutexGuard<'_, Option<Notifier>> {
        self.notifier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerHandle for Handle {
    fn stop(&self, deadline: Instant) -> io::Result<()> {
        // One that has ended needs no telling.
        drop(self.events.send(Event::Stop(deadline)));
        Ok(())
    }

    fn resized(&self, _: &Export) {
        // The attributes alone: what the pages hold is still so.
        if let Some(notifier) = &*self.notifier()
            && let Err(error) = notifier.inval_inode(self.inode, -1, 0)
        {
            tracing::debug!(%error, "the kernel is not told of a new size");
        }
    }
}

/// What is there until it is taken away.
#[derive(Debug)]
struct Mounted(MountPoint);

impl Mounted {
    /// Waits until the mount has gone, and takes it away when it is told to.
    fn wait(&self, events: &Receiver<Event>) -> io::Result<()> {
        let mut until: Option<Instant> = None;
        loop {
            // Whoever has the handle could tell of more.
            let left = until.map_or(LONG, |until| until.saturating_duration_since(Instant::now()));
            match events.recv_timeout(left) {
                Ok(Event::Gone(ended)) => return ended,
                Ok(Event::Stop(deadline)) => {
                    if until.is_none() {
                        self.take_away();
                    }
                    until = Some(until.map_or(deadline, |until| until.min(deadline)));
                }
                Err(RecvTimeoutError::Timeout) if until.is_none() => {}
                Err(_) => {
                    let path = self.0.path().display();
                    tracing::warn!(%path, "closed while it is still in use");
                    return Ok(());
                }
            }
        }
    }

    fn take_away(&self) {
        let path = self.0.path().display();
        match self.0.unmount() {
            Ok(Unmounted::Gone | Unmounted::Before) => {}
            Ok(Unmounted::InUse) => tracing::info!(%path, "unmounted, and still in use"),
            Err(error) => tracing::error!(%path, %error, "cannot be unmounted"),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.take_away();
    }
}
