//! The kept corpora: inputs that together reach all that was ever reached, as few as do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::build::Build;
use super::{at_once, folder};
use crate::{process, repo};

/// Bytes of all corpora together.
const MAX_BYTES: u64 = 5 << 20;

/// Makes the kept corpus of each target anew: of itself, and of what the last runs have added.
pub(super) fn minimise(names: &[String]) -> Result<()> {
    let build = Build::of_checkout()?;
    build.all(names)?;
    let work = repo::target_dir()?.join("fuzz");
    at_once(names, |name| {
        let (kept, new) = (folder("corpus").join(name), work.join("minimised").join(name));
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir_all(&new)?;
        let mut command = Command::new(build.program(name));
        command.arg("-merge=1").arg(&new);
        let inputs = [work.join("corpus").join(name), kept.clone()];
        command.args(inputs.iter().filter(|folder| folder.exists()));
        process::run(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
        replace(&kept, &new)?;
        println!("{name:<12} {} inputs", fs::read_dir(&kept)?.count());
        Ok(())
    })?;
    let bytes = bytes_in(&folder("corpus"))?;
    ensure!(bytes <= MAX_BYTES, "the corpora have {bytes} bytes, more than {MAX_BYTES}");
    Ok(())
}

/// Puts the files of `new` in the place of those of `kept`.
fn replace(kept: &Path, new: &Path) -> Result<()> {
    if kept.exists() {
        fs::remove_dir_all(kept)?;
    }
    fs::create_dir_all(kept)?;
    for entry in fs::read_dir(new)? {
        let entry = entry?;
        fs::copy(entry.path(), kept.join(entry.file_name()))
            .with_context(|| entry.path().display().to_string())?;
    }
    Ok(())
}

/// Bytes of all files in a folder and the folders in it.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
