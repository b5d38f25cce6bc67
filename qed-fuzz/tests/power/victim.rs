//! The program that writes, and what is found of the image that it leaves.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use qed_check::recovery_hook;
use qed_core::{
    CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_fuzz::{Mode, StreamDisk, WriteStream, assert_sound};
use qed_io::{Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};

pub(crate) const DISK: u64 = 8 << 20;
const SEED: u64 = 1;
/// Writes between two flushes of the program, one of which may be under way.
const BATCH: u32 = 4;

/// Makes an image, which is durable.
pub(crate) fn create_image(path: &Path, mode: Mode) {
    let new = NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
    let file = FileStorage::create(path, new).unwrap();
    create(&file, &CreateOptions { layout: mode.layout(), ..CreateOptions::new(DISK) }).unwrap();
}

pub(crate) fn empty_disk() -> StreamDisk {
    StreamDisk::new(WriteStream::new(SEED, DISK))
}

/// A program that writes on.
pub(crate) struct Victim {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    /// All writes before this one were flushed.
    acknowledged: u32,
}

impl Victim {
    pub(crate) fn start(image: &Path, disk: &StreamDisk) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_writer"))
            .arg(image)
            .args([SEED.to_string(), disk.next().to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said, acknowledged: disk.next() }
    }

    /// Waits until so many flushes were acknowledged.
    pub(crate) fn flushes(&mut self, count: u64) {
        for _ in 0..count {
            self.acknowledged = self.said.next().unwrap().unwrap().parse().unwrap();
        }
    }

    /// Kills it; which writes were flushed, and which were never asked for.
    pub(crate) fn kill(mut self) -> (u32, u32) {
        self.child.kill().unwrap();
        for line in self.said {
            self.acknowledged = line.unwrap().parse().unwrap();
        }
        self.child.wait().unwrap();
        (self.acknowledged, self.acknowledged + BATCH)
    }
}

/// Opens the image as the next program does, and holds it against what the guest knows.
pub(crate) fn check(image: &Path, disk: &mut StreamDisk, (acknowledged, asked): (u32, u32)) {
    let storage = Arc::new(FileStorage::open(image, FileOptions::READ_WRITE).unwrap());
    let context =
        WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
    let opened = Image::open(storage.clone(), &context).unwrap();
    let checked = disk.check(&opened, acknowledged, asked);
    checked.unwrap_or_else(|problem| panic!("flushed before {acknowledged}: {problem}"));
    opened.close().unwrap();
    assert_sound(&*storage);
}
