//! Makes one golden image with the installed QEMU. Knows how commands run and what is kept of their
//! folder, not what they do.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::manifest::{File, Image};
use crate::process;

/// The file that every image has.
const IMAGE: &str = "image.qed";
/// Of larger virtual disks the content is not taken.
const DISK_BYTES_MAX: u64 = 64 << 20;

/// What the commands of an image left.
pub(super) struct Made {
    /// In order of their names, with their bytes.
    pub(super) files: Vec<(File, Vec<u8>)>,
    /// The digest of the virtual disk.
    pub(super) content: Option<String>,
}

/// The version of the installed QEMU.
///
/// # Errors
/// It is missing, or says no version.
pub(super) fn qemu_version() -> Result<String> {
    let said = process::output(Command::new("qemu-img").arg("--version"))
        .context("the golden images need the Debian package qemu-utils")?;
    let version = said.split_whitespace().nth(2).context("qemu-img says no version")?;
    Ok(version.to_owned())
}

/// Runs the commands of an image in a folder that goes away.
///
/// # Errors
/// A command failed, or left no image.
pub(super) fn make(image: &Image) -> Result<Made> {
    // In memory: nothing here is about durability.
    let folder = tempfile::tempdir_in("/dev/shm").context("/dev/shm")?;
    for command in &image.commands {
        let mut shell = Command::new("sh");
        shell.args(["-uc", command]).current_dir(folder.path()).env("LC_ALL", "C.UTF-8");
        process::output(&mut shell).with_context(|| image.name.clone())?;
    }
    let files = files(folder.path()).with_context(|| image.name.clone())?;
    ensure!(files.iter().any(|(file, _)| file.name == IMAGE), "{}: no {IMAGE}", image.name);
    Ok(Made { files, content: content(folder.path())? })
}

fn files(folder: &Path) -> Result<Vec<(File, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.context("a file without a plain name")?.to_owned();
        files.push((File { name, len: bytes.len() as u64, sha256: digest(&bytes) }, bytes));
    }
    files.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(files)
}

/// The digest of the virtual disk, if QEMU reads it and it is not too large.
fn content(folder: &Path) -> Result<Option<String>> {
    let mut info = Command::new("qemu-img");
    info.args(["info", "-f", "qed", "--output=json", IMAGE]).current_dir(folder);
    let Ok(info) = process::output(&mut info) else { return Ok(None) };
    let info: Value = serde_json::from_str(&info).context("qemu-img info printed no JSON")?;
    let size = info["virtual-size"].as_u64().context("qemu-img info printed no size")?;
    if size > DISK_BYTES_MAX {
        return Ok(None);
    }
    let disk = tempfile::NamedTempFile::new_in("/dev/shm")?;
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "qed", "-O", "raw", IMAGE]).arg(disk.path()).current_dir(folder);
    let is_read = process::output(&mut convert).is_ok();
    Ok(is_read.then(|| fs::read(disk.path())).transpose()?.map(|bytes| digest(&bytes)))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
