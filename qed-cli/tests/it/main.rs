//! The program as its users call it: the built binary, real files, and QEMU beside it.

mod closed_pipe;
mod compact;
mod crash_safety;
mod devices;
mod dump;
mod exit_codes;
mod features;
mod foreign;
mod help;
mod in_place;
mod info;
mod lab;
mod locks;
mod mount;
mod names;
mod reflink;
mod serve;
mod signals;
mod space;
mod streams;
mod transcript;
mod transcripts;
mod vhost;
