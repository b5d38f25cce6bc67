//! Writes a stream to an image until it is killed, and says on standard output how much of it was
//! flushed: the victim of the tests that cut the power.
//!
//! Words: the image, the seed of the stream, the number of the first write.

use std::error::Error;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use qed_check::recovery_hook;
use qed_core::{Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext};
use qed_fuzz::WriteStream;
use qed_io::{FileOptions, FileStorage};

/// Writes between two flushes.
const BATCH: u32 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [path, seed, first] = &words[..] else { return Err("writer IMAGE SEED FIRST".into()) };
    let storage = Arc::new(FileStorage::open(Path::new(path), FileOptions::READ_WRITE)?);
    let context =
        WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
    let image = Image::open(storage, &context)?;
    let stream = WriteStream::new(seed.parse()?, image.image_size());
    let mut next: u32 = first.parse()?;
    loop {
        for number in next..next + BATCH {
            stream.write(&image, number)?;
        }
        image.flush()?;
        next += BATCH;
        let mut out = stdout().lock();
        writeln!(out, "{next}")?;
        out.flush()?;
        image.maintain(Instant::now())?;
    }
}
