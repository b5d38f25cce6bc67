//! The kept corpora: inputs that together reach all that was ever reached, as few as do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::build::Build;
use super::{at_once, folder, pack};
use crate::{process, repo};

/// Bytes of all corpora together.
const MAX_BYTES: u64 = 5 << 20;

/// Makes the kept corpus of each target anew: of itself, and of what the last runs have added.
pub(super) fn minimise(names: &[String], jobs: usize) -> Result<()> {
    let build = Build::new()?;
    build.all(names)?;
    let work = repo::target_dir()?.join("fuzz");
    at_once(names, jobs, |name| {
        let (kept, new) = (work.join("kept").join(name), work.join("minimised").join(name));
        pack::unpack(name, &kept)?;
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir_all(&new)?;
        let mut command = Command::new(build.program(name));
        // The smallest set of inputs, not the set of the smallest inputs: there are fewer.
        command.arg("-set_cover_merge=1").arg(&new);
        let inputs = [work.join("corpus").join(name), kept, folder("seeds").join(name)];
        command.args(inputs.iter().filter(|folder| folder.exists()));
        process::run(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
        println!("{name:<12} {} inputs", pack::pack(name, &new)?);
        Ok(())
    })?;
    let bytes = bytes_in(&folder("corpus"))?;
    println!("{bytes} bytes in all");
    ensure!(bytes <= MAX_BYTES, "the corpora have {bytes} bytes, more than {MAX_BYTES}");
    Ok(())
}

/// Bytes of the files in a folder.
fn bytes_in(folder: &Path) -> Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}
