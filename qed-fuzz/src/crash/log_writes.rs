//! Logs of the kernel's dm-log-writes, which QEMU's `blklogwrites` filter writes as well: what some
//! other program wrote, as records that can be crashed.

use std::io;

use qed_io::{Completion, Operation, Outcome, Record};

use crate::size::usize_of;

const MAGIC: u64 = 0x006a_7366_7773_6872;
/// Flags of an entry.
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// Sectors are counted in this unit, whatever the log's own sectors are.
const UNIT: u64 = 512;

/// The operations in a log.
///
/// # Errors
/// It is no such log, or has an operation that is not known here.
pub fn read_write_log(log: &[u8]) -> io::Result<Vec<Record>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let word = |at: u64| {
        let bytes = log.get(usize_of(at)..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(|| bad("the log ends early"))
    };
    if word(0)? != MAGIC {
        return Err(bad("no write log"));
    }
    let (entries, sector) = (word(16)?, word(24)? & u64::from(u32::MAX));
    if !sector.is_power_of_two() || sector < UNIT {
        return Err(bad("no sector size"));
    }
    let mut records = Vec::new();
    let mut add = |operation| {
        let order = 2 * records.len() as u64;
        let completion = Some(Completion { order: order + 1, outcome: Outcome::Done });
        records.push(Record { submitted: order, completion, operation });
    };
    let mut at = sector;
    for _ in 0..entries {
        let (first, count, flags) = (word(at)?, word(at + 8)?, word(at + 16)?);
        at += sector;
        if flags & (DISCARD | MARK) != 0 {
            return Err(bad("a discard or a mark"));
        }
        let len = count.checked_mul(UNIT).filter(|len| *len <= log.len() as u64);
        let len = len.ok_or_else(|| bad("the log ends early"))?;
        let bytes = log.get(usize_of(at)..usize_of(at + len));
        let bytes = bytes.ok_or_else(|| bad("the log ends early"))?;
        at += len.next_multiple_of(sector);
        if flags & FLUSH != 0 {
            add(Operation::Flush);
        }
        if !bytes.is_empty() {
            add(Operation::Write { offset: first * UNIT, bytes: bytes.into() });
        }
        if flags & FUA != 0 {
            add(Operation::Flush);
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests;
