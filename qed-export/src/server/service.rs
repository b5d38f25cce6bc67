//! One process's service: exports, the servers that give access to them, their maintenance, and the
//! order in which all of it ends.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::acceptor::Acceptor;
use super::contained::{Panicked, contained};
use super::control::{self, ControlServer, Controlled};
use super::exports::Exports;
use super::listen::Listener;
use super::maintenance::{CompactHandle, DiskEvent, Maintenance, Watcher};
use super::metrics::{self, MetricsServer, Pages};
use super::protocol::{ProtocolError, ProtocolServer, ServerHandle};
use crate::device::DeviceError;

/// Exports and the servers that give access to them, which do not run yet.
///
/// All servers give access to the same disks; maintenance, events and metrics are there once.
#[derive(Debug)]
pub struct Service {
    exports: Exports,
    servers: Vec<Box<dyn ProtocolServer>>,
    metrics: Vec<Acceptor>,
    control: Vec<Acceptor>,
    maintenance: Arc<Maintenance>,
    watcher: Watcher,
    news: (StopHandle, Receiver<News>),
}

/// What the thread that waits hears.
#[derive(Debug)]
enum News {
    Stop,
    Ended(Result<(), ServiceError>),
}

/// Ends a service from another thread.
#[derive(Debug, Clone)]
pub struct StopHandle(Sender<News>);

/// Why a service ended before it was told to, or not well.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The system refused a thread.
    #[error("starting to serve")]
    Start(#[from] io::Error),
    /// A server could not go on.
    #[error("serving {protocol}")]
    Server {
        /// The name of its protocol.
        protocol: &'static str,
        /// Why.
        #[source]
        source: ProtocolError,
    },
    /// A disk could not be closed well: what was not flushed may be lost.
    #[error("closing the disk '{name}'")]
    Close {
        /// The name of the export, bytes that are not text escaped.
        name: String,
        /// Why.
        #[source]
        source: DeviceError,
    },
}

/// The service has ended, and its disks are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl StopHandle {
    /// Tells the service to end: no new clients, and those that are there get what they asked for.
    pub fn stop(&self) {
        // One that has ended needs no telling.
        drop(self.0.send(News::Stop));
    }
}

impl Service {
    /// A service of these disks, without a server yet.
    #[must_use]
    pub fn new(exports: Exports) -> Self {
        let (sender, receiver) = channel();
        Self {
            exports,
            servers: Vec::new(),
            metrics: Vec::new(),
            control: Vec::new(),
            maintenance: Arc::default(),
            watcher: Watcher::default(),
            news: (StopHandle(sender), receiver),
        }
    }

    /// What it serves.
    #[must_use]
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Tells `watch` what happens to the disks, with their names: from the thread that keeps them in
    /// order, which waits for it.
    #[must_use]
    pub fn watched_by(self, watch: impl FnMut(&[u8], DiskEvent<'_>) + Send + 'static) -> Self {
        Self { watcher: Watcher::new(watch), ..self }
    }

    /// Adds a server of the exports, or of some of them; one of each protocol, so that each has its
    /// metrics.
    pub fn add(&mut self, server: impl ProtocolServer + 'static) {
        self.servers.push(Box::new(server));
    }

    /// Answers HTTP on a socket with the counters of all servers, as OpenMetrics has them.
    ///
    /// # Errors
    /// The system's, if it has no more descriptors.
    pub fn add_metrics(&mut self, listener: Listener) -> io::Result<()> {
        self.metrics.push(Acceptor::new(vec![listener], metrics::LIMITS)?);
        Ok(())
    }

    /// Answers requests about the service on a socket; whoever can connect can end it.
    ///
    /// # Errors
    /// The system's, if it has no more descriptors.
    pub fn add_control(&mut self, listener: Listener) -> io::Result<()> {
        self.control.push(Acceptor::new(vec![listener], control::LIMITS)?);
        Ok(())
    }

    /// What has its images compacted.
    #[must_use]
    pub fn compact_handle(&self) -> CompactHandle {
        CompactHandle::new(&self.maintenance, &self.exports)
    }

    /// What ends it.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.news.0.clone()
    }

    /// Adds the servers that tell of the others.
    fn add_those_that_tell(&mut self) {
        let counters: Vec<_> = self.servers.iter().filter_map(|server| server.counters()).collect();
        for acceptor in std::mem::take(&mut self.metrics) {
            let pages = Pages { exports: self.exports.clone(), counters: counters.clone() };
            self.servers.push(Box::new(MetricsServer { acceptor, pages }));
        }
        for acceptor in std::mem::take(&mut self.control) {
            let controlled = Controlled {
                exports: self.exports.clone(),
                counters: counters.clone(),
                compact: self.compact_handle(),
                stop: self.stop_handle(),
            };
            self.servers.push(Box::new(ControlServer { acceptor, controlled }));
        }
    }

    /// Serves until it is stopped or the first of its servers has ended; then ends all, with `drain` for
    /// requests under way, and closes the disks.
    ///
    /// Uses a thread for each server beside those that it uses itself, and one for the disks.
    ///
    /// # Errors
    /// That of the first server that could not go on, else of the first disk that could not be closed; all
    /// are closed in any case.
    pub fn run(mut self, drain: Duration) -> Result<Closed, ServiceError> {
        self.add_those_that_tell();
        let handles: Vec<_> = self.servers.iter().map(|server| server.handle()).collect();
        for export in self.exports.iter() {
            handles.iter().for_each(|handle| export.is_served_by(handle));
        }
        let running = Running { drain, handles };
        let (exports, maintenance, watcher) = (&self.exports, &self.maintenance, self.watcher);
        let served = std::thread::scope(|scope| {
            let keeper = Builder::new().name("maintenance".to_owned());
            keeper.spawn_scoped(scope, move || maintenance.run(exports, watcher))?;
            let served = running.run(scope, self.servers, &self.news);
            maintenance.end();
            served
        });
        let closed = close(&self.exports);
        served?;
        closed
    }
}

/// The servers while they run.
struct Running {
    drain: Duration,
    handles: Vec<Arc<dyn ServerHandle>>,
}

impl Running {
    /// Starts them and waits until all have ended.
    fn run<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        servers: Vec<Box<dyn ProtocolServer>>,
        (sender, news): &(StopHandle, Receiver<News>),
    ) -> Result<(), ServiceError> {
        let mut outcome = Ok(());
        let (mut running, mut is_stopped) = (0, false);
        for server in servers {
            match start(scope, server, sender.0.clone()) {
                Ok(()) => running += 1,
                Err(error) => {
                    outcome = Err(error.into());
                    sender.stop();
                    break;
                }
            }
        }
        while running > 0 {
            // This side has a sender too, so there are always more to come.
            let told = news.recv().unwrap_or(News::Stop);
            if let News::Ended(ended) = told {
                running -= 1;
                outcome = outcome.and(ended);
            }
            if !std::mem::replace(&mut is_stopped, true) {
                self.stop_all();
            }
        }
        outcome
    }

    fn stop_all(&self) {
        let deadline = Instant::now() + self.drain;
        for handle in &self.handles {
            if let Err(error) = handle.stop(deadline) {
                tracing::error!(%error, "a server cannot be ended");
            }
        }
    }
}

/// Starts the thread of a server.
fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    server: Box<dyn ProtocolServer>,
    news: Sender<News>,
) -> io::Result<()> {
    let protocol = server.name();
    let work = move || {
        let ended = contained(|| server.run()).unwrap_or_else(|panicked| Err(panicked.into()));
        let ended = ended.map_err(|source| ServiceError::Server { protocol, source });
        // Whoever started it waits for this.
        drop(news.send(News::Ended(ended)));
    };
    Builder::new().name(protocol.to_owned()).spawn_scoped(scope, work)?;
    Ok(())
}

/// Closes all disks.
fn close(exports: &Exports) -> Result<Closed, ServiceError> {
    let mut outcome = Ok(Closed);
    for export in exports.iter() {
        let closed = contained(|| export.device().close());
        if let Err(source) = closed.unwrap_or_else(|panicked| Err(failed(panicked))) {
            let name = export.shown_name();
            tracing::error!(export = %name, error = %source, "not closed well");
            outcome = outcome.and(Err(ServiceError::Close { name, source }));
        }
    }
    outcome
}

fn failed(panicked: Panicked) -> DeviceError {
    DeviceError::Failed(panicked.into())
}
