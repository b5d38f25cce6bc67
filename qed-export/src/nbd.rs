//! The NBD server: the protocol as values, and the server that speaks it on sockets.
//!
//! `docs/nbd.md` says what of the protocol is served. [`converse`] is the whole dialogue over any
//! stream and one thread; [`Server`] is the one with sockets, threads and limits.

mod connection;
mod contained;
mod converse;
mod counters;
mod exports;
mod incoming;
mod kind;
mod listen;
mod maintenance;
mod metrics;
mod negotiation;
mod open_metrics;
mod option;
mod perform;
mod registry;
mod reply;
mod request;
mod server;
mod socket;
mod status;
mod thread_pool;
mod tls;
mod transport;
mod wire;

pub use converse::converse;
pub use counters::{Counters, Snapshot};
pub use exports::{Export, ExportNameError, Exports, MAX_NAME_BYTES};
pub use listen::{Address, ListenError, Listener};
pub use maintenance::{CompactHandle, DiskEvent};
pub use server::{Closed, Limits, Server, ServerError, StopHandle};
pub use tls::{TlsError, TlsFiles, TlsIdentity};
