//! The crate through its public interface: disks as block devices, and the NBD protocol over streams
//! and sockets.

mod client;
mod devices;
mod dialogue;
mod hooked;
mod server;
