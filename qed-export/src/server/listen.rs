//! Where a server listens: Unix sockets that only their owner may use, TCP, and sockets that were
//! handed to the program.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{self as unix, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use mio::{Interest, Registry, Token, net};
use thiserror::Error;

use super::socket::Stream;

/// A socket that clients connect to.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: Address,
    /// Goes away with the listener.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Kind {
    Unix(net::UnixListener),
    Tcp(net::TcpListener),
}

/// Where a server can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// The path of a Unix socket; none for one without a name.
    Unix(Option<PathBuf>),
    /// A TCP address.
    Tcp(SocketAddr),
}

/// Why a server does not listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another server listens there.
    #[error("another server listens on '{}'", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no socket; it is left alone.
    #[error("'{}' exists and is not a socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// A path with which no client could connect.
    #[error("'{}' is too long: the path of a socket has less than 108 bytes", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// A name that is no address.
    #[error("'{address}' has no address")]
    NoAddress {
        /// The name.
        address: String,
    },
    /// The system refused.
    #[error("listening on '{address}'")]
    Io {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket that was handed over does not listen for streams.
    #[error("socket {index} that was handed over is no listening Unix or TCP socket")]
    HandedOver {
        /// Which of them, from 0.
        index: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Listener {
    /// A new Unix socket that only its owner may connect to. One that a dead server left is replaced.
    ///
    /// # Errors
    /// A living server, another file in the place, or the system's.
    pub fn unix(path: &Path) -> Result<Self, ListenError> {
        let io = |source| ListenError::Io { address: path.display().to_string(), source };
        // The name comes by a link, which may be longer than the name of a socket.
        if !is_socket_path(path) {
            return Err(ListenError::TooLong { path: path.to_path_buf() });
        }
        remove_stale(path)?;
        // Made where nobody else can reach it, and moved when its rights are what they should be.
        // A link takes a name only if it is free.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let private = PrivateFolder::new(folder.unwrap_or(Path::new("."))).map_err(io)?;
        let made = private.0.join("s");
        let listener = private.bind("s").map_err(io)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600)).map_err(io)?;
        fs::hard_link(&made, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ListenError::InUse { path: path.to_path_buf() },
            _ => io(source),
        })?;
        let file = SocketFile::of(path).map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        let address = Address::Unix(Some(path.to_path_buf()));
        Ok(Self { _file: Some(file), ..Self::of_unix(listener, address) })
    }

    /// A TCP socket at `HOST:PORT`; port 0 is one that is free.
    ///
    /// # Errors
    /// An unknown host, or the system's.
    pub fn tcp(address: &str) -> Result<Self, ListenError> {
        let io = |source| ListenError::Io { address: address.to_owned(), source };
        let mut addresses = address.to_socket_addrs().map_err(io)?;
        let first = addresses.next();
        let first = first.ok_or_else(|| ListenError::NoAddress { address: address.to_owned() })?;
        let listener = TcpListener::bind(first).map_err(io)?;
        Self::of_tcp(listener).map_err(io)
    }

    /// The sockets that the program was started with, as systemd hands them over; none without.
    ///
    /// # Errors
    /// A descriptor that is no listening socket.
    pub fn handed_over() -> Result<Vec<Self>, ListenError> {
        let mut handed = ListenFd::from_env();
        (0..handed.len()).map(|index| Self::take(&mut handed, index)).collect()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn take(handed: &mut ListenFd, index: usize) -> Result<Self, ListenError> {
        let bad = |source| ListenError::HandedOver { index, source };
        if let Ok(Some(listener)) = handed.take_unix_listener(index) {
            listener.set_nonblocking(true).map_err(bad)?;
            let name = listener.local_addr().map_err(bad)?;
            let address = Address::Unix(name.as_pathname().map(Path::to_path_buf));
            return Ok(Self::of_unix(listener, address));
        }
        match handed.take_tcp_listener(index) {
            Ok(Some(listener)) => Self::of_tcp(listener).map_err(bad),
            Ok(None) => Err(bad(io::ErrorKind::NotFound.into())),
            Err(error) => Err(bad(error)),
        }
    }

    fn of_unix(listener: UnixListener, address: Address) -> Self {
        let kind = Kind::Unix(net::UnixListener::from_std(listener));
        Self { kind, address, _file: None }
    }

    fn of_tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = Address::Tcp(listener.local_addr()?);
        let kind = Kind::Tcp(net::TcpListener::from_std(listener));
        Ok(Self { kind, address, _file: None })
    }

    pub(super) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.kind {
            Kind::Unix(listener) => registry.register(listener, token, Interest::READABLE),
            Kind::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// The next client; [`io::ErrorKind::WouldBlock`] when there is none.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        Ok(match &self.kind {
            Kind::Unix(listener) => Stream::Unix(OwnedFd::from(listener.accept()?.0).into()),
            Kind::Tcp(listener) => Stream::Tcp(OwnedFd::from(listener.accept()?.0).into()),
        })
    }
}

/// Whether a path is short enough for a socket.
fn is_socket_path(path: &Path) -> bool {
    unix::SocketAddr::from_pathname(path).is_ok()
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let io = |source| ListenError::Io { address: path.display().to_string(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(error)),
        Ok(_) => Err(ListenError::InUse { path: path.to_path_buf() }),
    }
}

/// The file of a socket, which goes away with the server, unless it is another's by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), identity: identity(path)? })
    }
}

/// Device and inode of a file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // What cannot be removed is stale for the next server.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A folder for one user alone, removed with all that is in it.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Short, because the path of a socket is.
    fn new(beside: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let process = std::process::id();
        for attempt in 0..100 {
            let path = beside.join(format!(".{process:x}.{attempt}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self(path)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// A socket in it.
    fn bind(&self, name: &str) -> io::Result<UnixListener> {
        let path = self.0.join(name);
        if is_socket_path(&path) {
            return UnixListener::bind(path);
        }
        // A little longer than the path that was asked for; an open folder has a short name.
        let folder = File::open(&self.0)?;
        UnixListener::bind(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Nothing depends on its being gone.
        drop(fs::remove_dir_all(&self.0));
    }
}
