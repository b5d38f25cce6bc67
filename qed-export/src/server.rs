//! What all servers of disks share, whatever their protocol: the exports, their maintenance, counters,
//! sockets, and how a process with several servers ends.
//!
//! [`Service`] is the whole: exports and the servers that give access to them. [`ProtocolServer`] is the
//! seam that a protocol fills. Nothing here knows a protocol.

mod acceptor;
mod contained;
mod control;
mod counters;
mod exports;
mod kind;
mod listen;
mod maintenance;
mod metrics;
mod open_metrics;
mod protocol;
mod quiet;
mod registry;
mod service;
mod socket;

pub(crate) use acceptor::{AcceptLimits, Acceptor, Clients};
pub(crate) use contained::contained;
pub use counters::{Connected, Counters, RequestKind, Snapshot};
pub use exports::{Export, ExportNameError, Exports, MAX_NAME_BYTES};
pub use listen::{Address, ListenError, Listener};
pub use maintenance::{CompactHandle, DiskEvent};
pub use protocol::{ProtocolError, ProtocolServer, ServerHandle};
pub(crate) use registry::Registry;
pub use service::{Closed, Service, ServiceError, StopHandle};
pub(crate) use socket::Socket;
