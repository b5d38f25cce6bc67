//! The crate through its public interface: disks as block devices, the NBD protocol over streams
//! and sockets, and vhost-user.

mod client;
mod control;
mod devices;
mod dialogue;
mod hand_over;
mod hooked;
mod in_flight;
mod protocols;
mod server;
mod vhost;
