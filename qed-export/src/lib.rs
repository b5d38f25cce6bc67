//! Serve virtual disks to other programs.
//!
//! [`BlockDevice`] is the seam: what a server may ask of a disk. [`QedDisk`], [`RawDisk`] and
//! [`ReadOnlyDisk`] are the disks, [`WriteThrough`] is any of them without a cache that a client
//! sees; the servers know none of them.
//!
//! Each server is one Cargo feature. `nbd` is the server of the NBD protocol: its parts that speak the
//! protocol take bytes and give values, and only `nbd::Server` has sockets and threads. `fuse` shows a
//! disk as a file. `server`, which
//! each of them turns on, is what they share: one `server::Service` gives access to its disks over any
//! number of protocols at once.

mod device;
#[cfg(feature = "fuse")]
pub mod fuse;
mod hand_over;
mod image;
mod in_flight;
#[cfg(feature = "nbd")]
pub mod nbd;
mod raw;
#[cfg(feature = "server")]
#[cfg_attr(
    not(all(feature = "nbd", feature = "vhost")),
    allow(dead_code, unused_imports, reason = "each protocol uses some of its parts")
)]
pub mod server;
mod sync;
#[cfg(feature = "vhost")]
pub mod vhost;
mod write_through;

pub use device::{
    Activity, Allocation, BlockDevice, BlockSizes, Compacted, Compaction, CompactionStep,
    DeviceError, Durability, Extent, Shrink, Space, SpaceUsage, Speed, TakeOver, Zeroing,
};
pub use hand_over::HandOver;
pub use image::{QedDisk, ReadOnlyDisk};
pub use in_flight::{Ended, InFlight, Transfer};
pub use raw::RawDisk;
pub use write_through::WriteThrough;
