//! The NBD server: the protocol as values, and the server that speaks it on sockets.
//!
//! `docs/nbd.md` says what of the protocol is served. [`converse`] is the whole dialogue over any
//! stream and one thread; [`Server`] is the one with sockets, threads and limits.

mod connection;
mod converse;
mod incoming;
mod kind;
mod negotiation;
mod option;
mod perform;
mod reply;
mod request;
mod server;
mod status;
mod thread_pool;
mod tls;
mod transport;
mod wire;

pub use converse::converse;
pub use server::{Limits, Server};
pub use tls::{TlsError, TlsFiles, TlsIdentity};
