//! The tests of qed-check through its public interface.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod crash;
mod device;
mod faults;
mod findings;
mod free_space;
mod holes;
mod hostile;
mod image;
mod many_tables;
mod marked;
mod oracle;
mod qemu;
mod recovery;
mod reference;
mod repairs;
mod threads;
mod watched;
