//! `open_once FILE`: opens an image for writing, recovered if need be, reads one sector and closes it.
//! Timed as a whole process after a crash, and after a close.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use qed_check::recovery_hook;
use qed_core::{Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext};
use qed_io::{Access, FileOptions, FileStorage};
use qed_spec::GuestOffset;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("open_once: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: open_once FILE")?;
    let options = FileOptions { access: Access::ReadWrite, direct: false };
    let storage = Arc::new(FileStorage::open(path, options)?);
    let recovery = RecoveryPolicy::Run(&recovery_hook);
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, recovery);
    let image = Image::open(storage, &context)?;
    let mut sector = [0; 512];
    image.read_at(&mut sector, GuestOffset::new(0))?;
    image.close()?;
    Ok(())
}
