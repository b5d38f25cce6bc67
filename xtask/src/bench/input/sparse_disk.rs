//! A sparse raw disk that compresses about as well as a real one: runs of words and of noise.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

const KIB: u64 = 1 << 10;
const DISK_LEN: u64 = 4 << 30;
/// Runs are 64 KiB to 1 MiB, in steps of 64 KiB; the gaps keep two fifths of the disk full.
const STEP: u64 = 64 * KIB;
const STEPS_MAX: u64 = 16;
/// Data is cut from a pool of this size, so that it is made once.
const POOL_LEN: usize = 16 << 20;
const WORDS: [&str; 16] = [
    "block",
    "table",
    "offset",
    "the ",
    " of ",
    "cluster",
    "0000",
    "\n",
    "image",
    "flush ",
    "=",
    "journal",
    "header",
    ", ",
    "1729",
    "\0\0\0\0\0\0\0\0",
];

/// Writes the disk to `path`. The same bytes each time.
///
/// # Errors
/// The file could not be written.
pub(super) fn write(path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    file.set_len(DISK_LEN)?;
    let mut random = Random(0x5EED_0FD1);
    let pool = pool(&mut random);
    let mut offset = 0;
    while offset < DISK_LEN {
        let len = (STEP * (1 + random.below(STEPS_MAX))).min(DISK_LEN - offset);
        write_run(&file, offset, len, &pool, &mut random)?;
        offset += len + STEP * (1 + random.below(STEPS_MAX * 3 / 2));
    }
    file.sync_all()?;
    Ok(())
}

/// Writes one run: bytes of the pool, each 4 KiB of it stamped with its place so that no two
/// blocks are the same.
fn write_run(file: &File, offset: u64, len: u64, pool: &[u8], random: &mut Random) -> Result<()> {
    let len = usize::try_from(len)?;
    let from = usize::try_from(random.below((POOL_LEN - len) as u64))?;
    let mut data = pool[from..from + len].to_vec();
    for (at, block) in (offset..).step_by(4096).zip(data.chunks_mut(4096)) {
        block[..8].copy_from_slice(&(at | 1).to_le_bytes());
    }
    file.write_all_at(&data, offset)?;
    Ok(())
}

/// Three quarters words, one quarter noise, in pieces of 4 KiB.
fn pool(random: &mut Random) -> Vec<u8> {
    let mut pool = Vec::with_capacity(POOL_LEN + 4096);
    while pool.len() < POOL_LEN {
        let end = pool.len() + 4096;
        let is_noise = random.below(4) == 0;
        while pool.len() < end {
            let value = random.next();
            if is_noise {
                pool.extend_from_slice(&value.to_le_bytes());
            } else {
                pool.extend_from_slice(WORDS[(value >> 60) as usize].as_bytes());
            }
        }
    }
    pool.truncate(POOL_LEN);
    pool
}

/// The xorshift64* generator: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
}
