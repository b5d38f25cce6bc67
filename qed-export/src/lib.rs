//! Serve virtual disks to other programs.
//!
//! [`BlockDevice`] is the seam: what a server may ask of a disk. [`QedDisk`], [`RawDisk`] and
//! [`ReadOnlyDisk`] are the disks, [`WriteThrough`] is any of them without a cache that a client
//! sees; the servers know none of them.
//!
//! Each server is one Cargo feature. `nbd` is the server of the NBD protocol: its parts that speak the
//! protocol take bytes and give values, and only `nbd::Server` has sockets and threads.
#![forbid(unsafe_code)]

mod device;
mod image;
#[cfg(feature = "nbd")]
pub mod nbd;
mod raw;
mod write_through;

pub use device::{
    Allocation, BlockDevice, BlockSizes, Compacted, Compaction, CompactionStep, DeviceError,
    Durability, Extent, Space, SpaceUsage, Speed, Zeroing,
};
pub use image::{QedDisk, ReadOnlyDisk};
pub use raw::RawDisk;
pub use write_through::WriteThrough;
