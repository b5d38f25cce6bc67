//! `write_until_killed FILE WRITES TABLES FLUSH_EVERY SKIP`: allocating writes of 4 KiB, spread over
//! the last TABLES L2 tables of the disk, then a line on standard output and nothing more until it is
//! killed, which is what it is for. SKIP clusters of each table are passed over.

use std::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use qed_core::{Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext};
use qed_io::{Access, FileOptions, FileStorage};
use qed_spec::GuestOffset;

const USAGE: &str = "usage: write_until_killed FILE WRITES TABLES FLUSH_EVERY SKIP";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("write_until_killed: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let path = args.next().ok_or(USAGE)?;
    let numbers: Vec<u64> = args
        .map(|arg| arg.to_str().and_then(|arg| arg.parse().ok()).ok_or(USAGE))
        .collect::<Result<_, _>>()?;
    let [writes, tables, flush_every, skip] = numbers[..] else { return Err(USAGE.into()) };
    let options = FileOptions { access: Access::ReadWrite, direct: false };
    let storage = Arc::new(FileStorage::open(path, options)?);
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
    let image = Image::open(storage, &context)?;
    let geometry = image.geometry();
    let coverage = geometry.l2_coverage_bytes();
    let all = image.image_size().div_ceil(coverage);
    for i in 0..writes {
        let table = all - tables + i % tables;
        // The last cluster first: it is free also where one in each table is.
        let slot = geometry.table_entries() - 1 - skip - i / tables;
        let at = table * coverage + slot * geometry.cluster_size_bytes();
        image.write_at(&[7; 4096], GuestOffset::new(at))?;
        if (i + 1) % flush_every == 0 {
            image.flush()?;
        }
    }
    println!("written");
    io::stdout().flush()?;
    // Ends with the program that started this one, if that does not kill it.
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
