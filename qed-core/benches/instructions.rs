//! Instructions of the hot paths, counted by valgrind: the same on a busy machine as on a quiet one.
//!
//! `cargo xtask instructions` runs it; it needs Debian's valgrind and the runner that the xtask
//! installs.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unused_qualifications,
    reason = "the macros make public items without docs"
)]

use std::hint::black_box;
use std::num::NonZeroU64;
use std::sync::Arc;

use gungraun::prelude::*;
use qed_core::{
    CreateOptions, Extent, Image, Keeps, LockPolicy, Ownership, PendingLost, RecoveryPolicy,
    RefuseBacking, WriteContext, create,
};
use qed_io::{MemoryStorage, Storage};
use qed_pending::{FileId, LogPlace};
use qed_spec::{Features, GuestOffset, Header};

const DISK: u64 = 64 << 20;

/// An image with its first cluster allocated and everything looked at once.
fn image() -> Box<Image> {
    opened(None)
}

/// The same, with a pending log.
fn logged_image() -> Box<Image> {
    opened(Some(&Ownership {
        boot_id: [1; 16],
        host_name: b"host",
        since: 1,
        token: NonZeroU64::MIN,
        salt: [2, 3],
        log: Some(&LogPlace::own(FileId { file: [4, 5], birth: [6, 7] })),
        keeps: Keeps::Owner,
        lost: PendingLost::Refuse,
        shared: false,
        take_over: false,
    }))
}

fn opened(ownership: Option<&Ownership<'_>>) -> Box<Image> {
    let storage = Arc::new(MemoryStorage::default());
    create(&*storage, &CreateOptions::new(DISK)).unwrap();
    let context = WriteContext {
        ownership,
        ..WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse)
    };
    // Boxed, since moving an image counts too.
    let image = Box::new(Image::open(storage, &context).unwrap());
    image.write_at(&[7; 4096], GuestOffset::new(0)).unwrap();
    // The first lookup brings the slice to the front of the cache, and sets up the thread for it.
    for _ in 0..2 {
        image.read_at(&mut [0; 4096], GuestOffset::new(0)).unwrap();
    }
    image
}

fn header_bytes() -> Vec<u8> {
    let storage = MemoryStorage::default();
    create(&storage, &CreateOptions::new(DISK)).unwrap();
    assert_eq!(storage.len().unwrap(), 5 << 16);
    storage.to_vec()[..64].to_vec()
}

#[library_benchmark]
#[bench::classic(header_bytes())]
fn parse_header(bytes: Vec<u8>) -> Header {
    Header::parse(black_box(&bytes), 5 << 16, Features::CLASSIC).unwrap()
}

#[library_benchmark]
#[bench::one_cluster(image())]
fn map_cached(image: Box<Image>) -> (Extent, Box<Image>) {
    (image.map(black_box(GuestOffset::new(4096)), 4096).unwrap(), image)
}

#[library_benchmark]
#[bench::cached(image())]
fn read_mapped_4k(image: Box<Image>) -> (u8, Box<Image>) {
    let mut buf = [0; 4096];
    image.read_at(black_box(&mut buf), GuestOffset::new(0)).unwrap();
    (buf[4095], image)
}

#[library_benchmark]
#[bench::fresh_cluster(image())]
#[bench::logged(logged_image())]
fn write_allocating_4k(image: Box<Image>) -> Box<Image> {
    image.write_at(black_box(&[7; 4096]), GuestOffset::new(1 << 20)).unwrap();
    image
}

library_benchmark_group!(
    name = hot_paths;
    benchmarks = parse_header, map_cached, read_mapped_4k, write_allocating_4k
);

main!(library_benchmark_groups = hot_paths);
