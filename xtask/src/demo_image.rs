//! Makes the disk of `./demo`: a small ext4 file system in a compressed QCOW2 image, and its
//! digests. Made by other programs throughout, so that the demo proves something.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{process, repo};

/// The image may not grow past this: it lies in the history for good.
const LEN_MAX: u64 = 2 << 20;

/// Makes `docs/demo/ext4.qcow2` and `docs/demo/SHA256SUMS` anew.
pub(crate) fn run(_words: &[String]) -> Result<()> {
    let work = repo::target_dir()?.join("demo-image");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let content = work.join("content");
    write_content(&content).context("writing the files of the disk")?;
    make_disk(&work)?;
    make_image(&work)?;

    let folder = repo::root().join("docs/demo");
    let image = folder.join("ext4.qcow2");
    fs::copy(work.join("ext4.qcow2"), &image)?;
    let len = image.metadata()?.len();
    ensure!(len < LEN_MAX, "the image has {len} bytes, {LEN_MAX} is its limit");
    let sums =
        Command::new("sha256sum").args(["ext4.qcow2", "ext4.raw"]).current_dir(&work).output()?;
    fs::write(folder.join("SHA256SUMS"), sums.stdout)?;
    println!("{}: {len} bytes", image.display());
    Ok(())
}

/// The files of the disk: text, noise that does not compress, a hole and a link.
fn write_content(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("letters"))?;
    fs::write(folder.join("README"), "A disk of the QED demo. Every byte of it has a digest.\n")?;
    for letter in 'a'..='f' {
        let text = format!("{letter}\n").repeat(20_000);
        fs::write(folder.join(format!("letters/{letter}.txt")), text)?;
    }
    let mut numbers = File::create(folder.join("numbers.txt"))?;
    for number in 0..50_000 {
        writeln!(numbers, "{number}")?;
    }
    fs::write(folder.join("noise.bin"), noise(512 << 10))?;
    File::create(folder.join("sparse.bin"))?.write_all_at(b"the end\n", 8 << 20)?;
    symlink("letters/a.txt", folder.join("link"))?;
    Ok(())
}

/// Bytes that no codec shortens, the same each time (xorshift64).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// A raw disk with an ext4 file system of the files, checked by its own checker.
fn make_disk(work: &Path) -> Result<()> {
    let disk = work.join("ext4.raw");
    File::create(&disk)?.set_len(64 << 20)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args([
        "-q",
        "-t",
        "ext4",
        "-L",
        "qed-demo",
        "-U",
        "71ed71ed-0000-4000-8000-000000000001",
    ]);
    mke2fs.args(["-E", "root_owner=0:0,hash_seed=71ed71ed-0000-4000-8000-000000000002"]);
    process::run(mke2fs.arg("-d").arg(work.join("content")).arg(&disk))?;
    process::run(Command::new("e2fsck").arg("-fn").arg(&disk))
}

/// The same disk as a QCOW2 image with compressed clusters.
fn make_image(work: &Path) -> Result<PathBuf> {
    let image = work.join("ext4.qcow2");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-c", "-m", "1", "-f", "raw", "-O", "qcow2"]);
    process::run(convert.arg(work.join("ext4.raw")).arg(&image))?;
    process::run(Command::new("qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(&image))?;
    Ok(image)
}
