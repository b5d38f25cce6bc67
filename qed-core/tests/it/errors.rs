//! What a failure says: which step it was, and where in the file.

use std::error::Error;
use std::io;
use std::sync::Arc;

use qed_core::{Image, ImageError, IoAction, RefuseBacking, ResizeError, Shrink, ZeroMode};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, Request, RequestKind, Storage};
use qed_spec::GuestOffset;

use crate::support::{new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;
/// Header and L1 table, then the L2 table, then the first data cluster.
const TABLE: u64 = 3 * CLUSTER;
const DATA: u64 = 5 * CLUSTER;

fn write(image: &Image, at: u64) -> Result<(), ImageError> {
    image.write_at(&[1; 4096], GuestOffset::new(at))
}

#[test]
fn a_failed_request_names_the_step_and_the_place() {
    type Step = fn(&Image) -> Result<(), ImageError>;
    let read: Step = |image| image.read_at(&mut [0; 512], GuestOffset::new(512));
    let resize: Step = |image| match image.resize(8 * CLUSTER, Shrink::Allow) {
        Err(ResizeError::Image(error)) => Err(error),
        other => panic!("{other:?}"),
    };
    let hide: Step = |image| {
        image.write_zeroes(GuestOffset::new(CLUSTER), CLUSTER, ZeroMode::Explicit)?;
        image.flush()
    };
    // The request that fails, by its kind and first byte; then what is told: step and place.
    let cases: [(RequestKind, u64, IoAction, u64, Step); 8] = [
        (RequestKind::Read, TABLE, IoAction::ReadTable, TABLE, read),
        (RequestKind::Read, DATA + 512, IoAction::ReadData, DATA + 512, read),
        (RequestKind::Write, DATA, IoAction::WriteData, DATA, |image| write(image, 0)),
        (RequestKind::WriteZeroes, DATA, IoAction::WriteData, DATA, |image| {
            image.write_zeroes(GuestOffset::new(0), CLUSTER, ZeroMode::IfNeeded)
        }),
        (RequestKind::SetLen, 0, IoAction::Resize, DATA + 2 * CLUSTER, |image| {
            write(image, CLUSTER)
        }),
        (RequestKind::Write, 0, IoAction::WriteHeader, 0, resize),
        (RequestKind::Write, TABLE, IoAction::WriteTable, TABLE, hide),
        (RequestKind::Flush, 0, IoAction::Flush, 0, |image| image.flush()),
    ];
    for (kind, first, expected, place, step) in cases {
        let memory = new_storage(small_geometry(), 4 * CLUSTER, false);
        let image = open(memory.clone(), &RefuseBacking);
        write(&image, 0).unwrap();
        image.close().unwrap();
        let storage = Arc::new(Faulty::new(memory));
        let image = open(storage.clone(), &RefuseBacking);
        let chosen = move |request: &Request| request.kind == kind && request.range.start == first;
        storage.fail_when(chosen, Fault::Io, Repeat::Always);
        let error = step(&image).unwrap_err();
        let ImageError::Io { action, at, .. } = &error else { panic!("{expected}: {error}") };
        assert_eq!((*action, at.get()), (expected, place));
        let text = format!("{expected} at offset {place:#x} of the image file");
        assert_eq!(error.to_string(), text);
        assert!(error.source().is_some_and(|source| source.is::<io::Error>()));
    }
}

#[test]
fn steps_have_names() {
    let names = [
        (IoAction::ReadData, "reading guest data"),
        (IoAction::WriteData, "writing guest data"),
        (IoAction::ReadTable, "reading a table"),
        (IoAction::WriteTable, "writing a table"),
        (IoAction::ReadHeader, "reading the header"),
        (IoAction::WriteHeader, "writing the header"),
        (IoAction::Resize, "setting the file length"),
        (IoAction::Flush, "flushing"),
    ];
    for (action, name) in names {
        assert_eq!(action.to_string(), name);
    }
}

#[test]
fn a_full_device_refuses_new_clusters_and_writes_those_it_has() {
    let memory = new_storage(small_geometry(), 4 * CLUSTER, false);
    let image = open(memory.clone(), &RefuseBacking);
    write(&image, 0).unwrap();
    image.close().unwrap();
    let device = Arc::new(MemoryStorage::device(memory.to_vec()));
    let image = open(device.clone(), &RefuseBacking);
    let error = write(&image, CLUSTER).unwrap_err();
    let end = device.len().unwrap();
    assert!(
        matches!(&error, ImageError::NoSpace { clusters: 1, end: found } if found.get() == end)
    );
    assert_eq!(
        error.to_string(),
        "no space for 1 more clusters at offset 0x6000 of the image file"
    );
    image.write_at(&[9; 512], GuestOffset::new(512)).unwrap();
    let mut disk = [0xee; 2 * 4096];
    image.read_at(&mut disk, GuestOffset::new(0)).unwrap();
    assert!(disk[..512] == [1; 512] && disk[512..1024] == [9; 512] && disk[4096..] == [0; 4096]);
    image.close().unwrap();
}
