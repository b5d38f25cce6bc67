//! TLS: the server's identity, which clients it lets in, and one encrypted connection. Knows no NBD.

use std::io::{self, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use thiserror::Error;

use crate::server::Socket;

/// Encrypted bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Where the server's certificate lies, and whose clients it lets in. All files are PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, then those between it and a root that clients know.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs certificates of clients. With it a client without a certificate is refused;
    /// without it every client that speaks TLS is let in.
    pub client_ca: Option<PathBuf>,
}

/// The identity of the server, and which clients it lets in.
#[derive(Debug, Clone)]
pub struct TlsIdentity(Arc<ServerConfig>);

/// Why there is no identity.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that cannot be read or is not PEM.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// A file without what it should hold.
    #[error("{} holds no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key that does not fit.
    #[error("TLS certificates")]
    Certificates(#[from] rustls::Error),
    /// The clients' certificates cannot be checked with what is given.
    #[error("certificates of clients")]
    Verifier(#[from] VerifierBuilderError),
}

impl TlsIdentity {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|source| TlsError::File { path: files.key.clone(), source })?;
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let config = match &files.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                config.with_client_cert_verifier(verifier.build()?)
            }
        };
        Ok(Self(Arc::new(config.with_single_cert(chain, key)?)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File { path: path.to_path_buf(), source };
    let list = CertificateDer::pem_file_iter(path).map_err(file)?;
    let list = list.collect::<Result<Vec<_>, _>>().map_err(file)?;
    if list.is_empty() { Err(TlsError::Empty { path: path.to_path_buf() }) } else { Ok(list) }
}

/// One encrypted connection.
#[derive(Debug)]
pub(super) struct TlsStream {
    socket: Arc<Socket>,
    session: Mutex<ServerConnection>,
    /// What came from the socket and not through the session yet. Only the reader takes it.
    encrypted: Mutex<Encrypted>,
    /// What came out of the session and is not sent yet. A thread that waits for the client to take it has
    /// this and not the session, so that others read on. Taken before the session.
    outgoing: Mutex<Outgoing>,
}

#[derive(Debug)]
struct Encrypted {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

/// Says goodbye, so that the client knows that nothing was cut off.
impl Drop for TlsStream {
    fn drop(&mut self) {
        let outgoing = self.outgoing.get_mut().unwrap_or_else(PoisonError::into_inner);
        let session = self.session.get_mut().unwrap_or_else(PoisonError::into_inner);
        session.send_close_notify();
        // A client that is gone, or takes nothing, does without.
        drop(outgoing.take_from(session).and_then(|()| outgoing.send(&self.socket)));
    }
}

impl Outgoing {
    /// Takes what the session has to say.
    fn take_from(&mut self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut self.bytes)?;
        }
        Ok(())
    }

    fn send(&mut self, mut socket: &Socket) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match socket.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

impl TlsStream {
    /// Does the server's side of the TLS handshake.
    pub(super) fn accept(socket: Arc<Socket>, identity: &TlsIdentity) -> io::Result<Self> {
        let mut session = ServerConnection::new(identity.0.clone()).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut &*socket)?;
        }
        let buffer = vec![0; BUFFER_BYTES].into();
        let encrypted = Mutex::new(Encrypted { buffer, start: 0, end: 0 });
        let outgoing = Mutex::default();
        Ok(Self { socket, session: Mutex::new(session), encrypted, outgoing })
    }

    /// Reads what there is; the socket is waited for while others may write.
    pub(super) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut encrypted = self.encrypted.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(read) = self.decrypt(&mut encrypted, buf)? {
                return Ok(read);
            }
            // What was decrypted must not be there for a second time if this read fails.
            (encrypted.start, encrypted.end) = (0, 0);
            encrypted.end = { &*self.socket }.read(&mut encrypted.buffer)?;
            if encrypted.end == 0 {
                // Cut short, or closed by one who does not say so: no byte is missing that the
                // protocol above would not miss.
                return Ok(0);
            }
        }
    }

    /// Decrypts what is here; none when more is needed.
    fn decrypt(&self, encrypted: &mut Encrypted, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut session = self.session();
        loop {
            match session.reader().read(buf) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let mut rest = &encrypted.buffer[encrypted.start..encrypted.end];
            if rest.is_empty() {
                return Ok(None);
            }
            encrypted.start += session.read_tls(&mut rest)?;
            let processed = session.process_new_packets();
            // An alert says why before the connection ends. Where a reply is being sent it waits for
            // the next one, as does what the client takes too slowly.
            if session.wants_write()
                && let Ok(mut outgoing) = self.outgoing.try_lock()
            {
                outgoing.take_from(&mut session)?;
                drop(outgoing.send(&self.socket));
            }
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    /// Encrypts some of the bytes; how many. What was encrypted before is sent first, the rest by
    /// [`TlsStream::flush`]; either can be tried again where the socket says so.
    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut outgoing = self.outgoing();
        outgoing.send(&self.socket)?;
        let mut session = self.session();
        let taken = session.writer().write_vectored(parts)?;
        outgoing.take_from(&mut session)?;
        Ok(taken)
    }

    /// Sends what is encrypted.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.outgoing().send(&self.socket)
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> MutexGuard<'_, ServerConnection> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
