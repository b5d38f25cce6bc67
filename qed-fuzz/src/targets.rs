//! The fuzz targets: each a generator and its oracles. A fuzzer drives them, and so do the tests.

mod chain;
mod convert;
mod header;
mod image;
mod journal;
mod map;
mod nbd;
mod operations;
mod qcow2;
mod qemu;
mod repair;
mod superblock;
mod writes;

use arbitrary::{Result, Unstructured};

use crate::branches::Branches;

/// One target: bytes in, a panic where an oracle says no.
#[derive(Debug)]
pub struct Target {
    /// As of its program in `fuzz_targets`.
    pub name: &'static str,
    /// How many seeded inputs the tests give it: a few seconds of work.
    pub runs_in_tests: u64,
    run: fn(&mut Unstructured<'_>, &mut Branches) -> Result<()>,
}

/// Every target.
pub const TARGETS: [Target; 13] = [
    Target { name: "header", runs_in_tests: 200_000, run: header::run },
    Target { name: "superblock", runs_in_tests: 20_000, run: superblock::run },
    Target { name: "image", runs_in_tests: 6_000, run: image::run },
    Target { name: "map", runs_in_tests: 6_000, run: map::run },
    Target { name: "repair", runs_in_tests: 6_000, run: repair::run },
    Target { name: "writes", runs_in_tests: 6_000, run: writes::run },
    Target { name: "journal", runs_in_tests: 6_000, run: journal::run },
    Target { name: "operations", runs_in_tests: 5_000, run: operations::run },
    Target { name: "qcow2", runs_in_tests: 10_000, run: qcow2::run },
    Target { name: "convert", runs_in_tests: 3_000, run: convert::run },
    Target { name: "chain", runs_in_tests: 2_000, run: chain::run },
    Target { name: "nbd", runs_in_tests: 5_000, run: nbd::run },
    Target { name: "qemu", runs_in_tests: 200, run: qemu::run },
];

impl Target {
    /// Makes an input of the bytes and holds the oracles against it.
    ///
    /// # Panics
    /// If an oracle finds a fault.
    pub fn run(&self, bytes: &[u8], branches: &mut Branches) {
        // Bytes that a generator has no use for are an input that says nothing.
        let _ = (self.run)(&mut Unstructured::new(bytes), branches);
    }
}

/// Runs the target of this name, as its fuzz program does.
///
/// # Panics
/// If there is no such target, or if an oracle finds a fault.
pub fn fuzz(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a fuzz program has the name of a target").run(bytes, &mut Branches::unseen());
}
