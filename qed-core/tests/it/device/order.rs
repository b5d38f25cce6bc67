//! The order in which the recorded end of an image on a device and what lies below it become durable.

use std::sync::Arc;

use qed_core::{CreateOptions, Layout, RefuseBacking, create};
use qed_io::{MemoryStorage, Operation, Recorder};
use qed_spec::{Geometry, GuestOffset, SectionType, Superblock};

use super::{COMPAT, JOURNAL, STALE};
use crate::support::open;

const CLUSTER: u64 = 64 << 10;

/// The recorded end that a write of a superblock says.
fn said(offset: u64, bytes: &[u8]) -> Option<u64> {
    if offset != 0x2000 && offset != 0x3000 {
        return None;
    }
    let superblock = Superblock::parse(bytes).ok()?;
    let section = superblock.section(SectionType::PHYSICAL_SIZE)?;
    Some(u64::from_le_bytes(section.payload()[..8].try_into().unwrap()))
}

// spec-test: QED-DEV-01
#[test]
fn the_recorded_end_is_durable_before_an_entry_that_it_is_raised_for() {
    for layout in [COMPAT, JOURNAL] {
        assert_eq!(check(layout), 2, "140 MiB in steps of 64 MiB ahead of use");
    }
}

/// How often the end was raised.
fn check(layout: Layout) -> u32 {
    let device = Arc::new(MemoryStorage::device(vec![STALE; 160 << 20]));
    let geometry = Geometry::new(CLUSTER as u32, 4).unwrap();
    let options = CreateOptions { geometry, image_size: 1 << 30, backing: None, layout };
    create(&*device, &options).unwrap();
    let recorder = Arc::new(Recorder::new(device));
    let image = open(recorder.clone(), &RefuseBacking);
    let l1_end = image.header().fields().l1_table_offset.get() + 4 * CLUSTER;
    // Behind the L1 table lies the only L2 table.
    let is_entry = |at: u64| (0x4000..l1_end + 4 * CLUSTER).contains(&at);
    let data = vec![7; 10 << 20];
    let (mut seen, mut durable, mut written, mut raises) = (0, 0, 0, 0);
    for step in 0..14 {
        image.write_at(&data, GuestOffset::new(step * data.len() as u64)).unwrap();
        // The zeros of the table are written by the request, and are no entry.
        let before = recorder.records().len();
        let end = image.space_usage().unwrap().end;
        image.flush().unwrap();
        let records = recorder.records();
        for (number, record) in records.iter().enumerate().skip(seen) {
            match &record.operation {
                Operation::Flush => durable = written,
                Operation::Write { offset, bytes } => {
                    if let Some(said) = said(*offset, bytes) {
                        raises += u32::from(said > written);
                        written = said;
                    } else if number >= before && is_entry(*offset) {
                        assert!(durable >= end, "{layout:?}: {offset:#x}, {durable:#x} {end:#x}");
                    }
                }
                _ => {}
            }
        }
        seen = records.len();
    }
    image.close().unwrap();
    raises
}
