//! Tests of qed-spec through its public interface, most of them over whole domains.

mod addr;
mod anchor;
mod conversion;
mod copies;
mod entry;
mod features;
mod geometry;
mod header;
mod image;
mod journal;
mod modes;
mod names;
mod no_std;
mod owner;
mod physical_size;
mod qemu;
mod section;
mod superblock;
