//! The inputs of `convert` as one virtual disk.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use qed_core::{RawFile, VirtualDisk};
use qed_io::{FileStorage, Storage};

use super::ConvertArgs;
use super::settings::Settings;
use crate::args::{Format, by_name};
use crate::chain::Disk;
use crate::disks::Joined;
use crate::open::{OpenHow, could_not_open, open_image};

/// Opens the inputs; several are joined.
pub(super) fn open(
    args: &ConvertArgs,
    settings: &Settings,
    inputs: &[OsString],
) -> anyhow::Result<Disk> {
    let (mut disks, mut layers) = (Vec::new(), Vec::new());
    for input in inputs {
        let opened = open_one(args, settings, input)?;
        disks.push(opened.disk);
        layers.extend(opened.layers);
    }
    let disk = match disks.len() {
        1 => disks.remove(0),
        _ => Arc::new(Joined::new(disks)),
    };
    Ok(Disk { disk, layers })
}

fn open_one(args: &ConvertArgs, settings: &Settings, input: &OsStr) -> anyhow::Result<Disk> {
    let format = args.source_format.as_deref();
    if input == "-" {
        let disk = standard_input(format).context("Could not read standard input")?;
        return Ok(Disk { disk, layers: Vec::new() });
    }
    let how = OpenHow { cache: settings.source_cache, ..OpenHow::read(args.force_share) };
    let image = open_image(&args.named.image(input, format)?, how)?;
    let disk = args.chain.open_over(image, how, settings.snapshot.as_ref());
    disk.with_context(|| could_not_open(input))
}

/// Raw data on standard input: a file is read in place, a pipe through a temporary file.
fn standard_input(format: Option<&OsStr>) -> anyhow::Result<Arc<dyn VirtualDisk>> {
    if format.is_some_and(|format| by_name(format) != Some(Format::Raw)) {
        bail!("only raw data can be read from it");
    }
    let mut stdin = io::stdin().lock();
    let mut file = tempfile::tempfile()?;
    copy_sparse(&mut stdin, &mut file)?;
    let storage = FileStorage::from_fd(file)?;
    Ok(Arc::new(RawFile::open(Arc::new(storage) as Arc<dyn Storage>)?))
}

const PIECE_LEN: usize = 64 << 10;

/// Copies all there is; pieces of zeros become holes.
fn copy_sparse(from: &mut impl Read, to: &mut std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    let mut piece = vec![0; PIECE_LEN];
    let mut at = 0;
    loop {
        let len = fill(from, &mut piece)?;
        if len == 0 {
            return to.set_len(at);
        }
        if !qed_convert::is_zero(&piece[..len]) {
            to.write_all_at(&piece[..len], at)?;
        }
        at += len as u64;
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match from.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
