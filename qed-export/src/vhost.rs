//! The vhost-user-blk server: a disk for a virtual machine, whatever its VMM.
//!
//! `docs/guests.md` says how VMMs are started with it. The protocol of frontends is values (`message`) that
//! a `session` obeys; the protocol of guests is a `ring` of `chain`s, which a `queue` makes `request`s of and
//! performs. [`Server`] is the one with sockets and threads.
//!
//! What a guest writes anywhere is hostile, and is checked where it is read: `memory`, `ring` and `chain`
//! give nothing that is outside. A frontend is the VMM, which the guest trusts with everything; its messages
//! are checked as far as they can be.

mod chain;
mod channel;
mod config;
mod data;
mod event;
mod inflight;
mod log;
mod lone;
mod memory;
mod message;
mod perform;
mod queue;
mod request;
mod ring;
mod server;
mod serving;
mod session;
mod sys;
#[cfg(test)]
mod testing;
mod wire;
mod worker;

pub use config::VhostOptions;
pub use lone::{LoneOptions, LoneQueue, LoneQueueError};
pub use memory::{MAX_REGIONS, Memory, MemoryError, RegionInfo, memory_file};
pub use ring::{MAX_QUEUE_SIZE, RingAddress};
pub use server::Server;
