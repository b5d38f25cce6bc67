//! The seam between a [`Service`](super::Service) and the server of one protocol.

use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Counters, Export};

/// Why a server could not go on.
pub type ProtocolError = Box<dyn Error + Send + Sync>;

/// A server of one protocol, which has what it needs to begin: it listens, or is mounted.
///
/// Several may serve one export: each sees what the others changed once that was acknowledged, and a
/// flush on any of them covers the writes of all. The exports are neither closed nor maintained by it.
pub trait ProtocolServer: Debug + Send {
    /// The name of the protocol, for logs and threads.
    fn name(&self) -> &'static str;

    /// What it counts, for the page of metrics; none if it counts nothing.
    fn counters(&self) -> Option<Arc<Counters>> {
        None
    }

    /// How it is reached while it runs.
    fn handle(&self) -> Arc<dyn ServerHandle>;

    /// Serves until it is stopped or ends by itself; then no request of it is under way, and nothing
    /// of it is left to be found.
    ///
    /// # Errors
    /// Why it could not go on.
    fn run(self: Box<Self>) -> Result<(), ProtocolError>;
}

/// Reaches a server from other threads, also before it runs and after it has ended.
pub trait ServerHandle: Debug + Send + Sync {
    /// Tells it to end: nobody new is let in, requests that were sent may go on until `deadline`, and are
    /// cut then. Returns at once. Again with an earlier deadline it hurries.
    ///
    /// # Errors
    /// The system's, if it could not be woken.
    fn stop(&self, deadline: Instant) -> io::Result<()>;

    /// An export has another size now, which clients of the server are to be told; called by the thread
    /// that made it so, which may be one of the server's own. No other change of its size begins before
    /// it returns.
    fn resized(&self, _export: &Export) {}
}
