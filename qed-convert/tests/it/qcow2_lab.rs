//! A folder in which scripts of `qemu-img` and `qemu-io` calls make images, and QEMU's view of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use qed_convert::qcow2::{Qcow2Image, Qcow2Options, Qcow2SnapshotSelector};
use qed_core::{
    BackingGate, BackingRequest, GateError, GuestExtentKind, LockPolicy, RawFile, ReadContext,
    ReadOnlyImage, RefuseBacking, VirtualDisk,
};
use qed_io::{FileOptions, FileStorage, Storage};

use crate::lab::{Random, noise};

/// A temporary folder that tools run in.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

/// A part of the guest with one mapping, as `qemu-img map` sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MapEntry {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) depth: u64,
    pub(crate) kind: GuestExtentKind,
}

impl Lab {
    /// A folder with `source.raw`: text, noise, zeros and holes, the same in every run.
    pub(crate) fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::write(lab.path("source.raw"), mixed_bytes(3 << 20)).expect("room in /tmp");
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a script: each line is either `io FILE COMMANDS`, the `;` separated commands for
    /// `qemu-io`, or the arguments of `qemu-img`.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let output = match line.strip_prefix("io ") {
                Some(rest) => {
                    let (file, commands) = rest.split_once(' ').expect("io FILE COMMANDS");
                    let commands = commands.split(';').flat_map(|one| ["-c", one.trim()]);
                    self.tool("qemu-io", ["-t", "unsafe"].into_iter().chain(commands).chain([file]))
                }
                None => {
                    let words = line.split_whitespace();
                    self.tool("qemu-img", words.map(|word| word.trim_matches('\'')))
                }
            };
            let text = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            // qemu-io succeeds whatever its commands do.
            let failed = !output.status.success() || text.contains("failed");
            assert!(!failed, "{line}\n{text}");
        }
    }

    pub(crate) fn tool<'a>(&self, tool: &str, args: impl IntoIterator<Item = &'a str>) -> Output {
        let output = Command::new(tool).args(args).current_dir(self.folder.path()).output();
        output.unwrap_or_else(|error| {
            panic!("{tool}: {error}; install the Debian package qemu-utils")
        })
    }

    /// Opens a QCOW2 image, its backing chain by the formats that the images state.
    pub(crate) fn open(&self, name: &str) -> Qcow2Image {
        self.open_snapshot(name, None)
    }

    pub(crate) fn open_snapshot(
        &self,
        name: &str,
        snapshot: Option<Qcow2SnapshotSelector>,
    ) -> Qcow2Image {
        let gate = FolderGate { folder: self.folder.path() };
        let options = Qcow2Options { snapshot, ..Qcow2Options::new(&gate, LockPolicy::Take) };
        Qcow2Image::open(file(&self.path(name)), &options).expect(name)
    }

    /// The guest's bytes of an image as `qemu-img convert` with `extra` arguments writes them.
    #[track_caller]
    pub(crate) fn qemu_bytes(&self, name: &str, extra: &str) -> Vec<u8> {
        self.run(&format!("convert -O raw {extra} {name} qemu.raw"));
        fs::read(self.path("qemu.raw")).expect("just written")
    }

    /// `qemu-img map`, joined where neighbours differ in nothing that an extent can say.
    #[track_caller]
    pub(crate) fn qemu_map(&self, name: &str) -> Vec<MapEntry> {
        let output = self.tool("qemu-img", ["map", "--output=json", name]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "map {name}: {stderr}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let entries = json.as_array().expect("a list").iter().map(map_entry);
        // An empty disk has one entry of no bytes.
        joined(entries.filter(|entry| entry.len > 0))
    }
}

/// The map of our reader, joined in the same way.
pub(crate) fn map_of(image: &dyn VirtualDisk) -> Vec<MapEntry> {
    let mut at = 0;
    joined(std::iter::from_fn(|| {
        if at == image.len() {
            return None;
        }
        let extent = image.extent_at(at, image.len() - at).expect("a good image");
        assert!(extent.len > 0 && extent.len <= image.len() - at, "at {at}: {extent:?}");
        let entry =
            MapEntry { start: at, len: extent.len, depth: extent.depth.into(), kind: extent.kind };
        at += extent.len;
        Some(entry)
    }))
}

/// All of the guest's bytes, read in requests of `request_len`.
pub(crate) fn bytes_of(image: &dyn VirtualDisk, request_len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(image.len()).expect("small")];
    let mut at = 0;
    for chunk in bytes.chunks_mut(request_len) {
        image.read_at(chunk, at).expect("a good image");
        at += chunk.len() as u64;
    }
    bytes
}

pub(crate) fn file(path: &Path) -> Arc<dyn Storage> {
    let file = FileStorage::open(path, FileOptions::READ_ONLY);
    Arc::new(file.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Opens what an image names in its folder, raw if the image says so, else by the file name's end.
#[derive(Clone, Copy)]
struct FolderGate<'a> {
    folder: &'a Path,
}

impl BackingGate for FolderGate<'_> {
    fn open_backing(
        &self,
        request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn VirtualDisk>>, GateError> {
        let name = std::str::from_utf8(request.name.as_bytes()).expect("test names are text");
        let storage = file(&self.folder.join(name));
        Ok(Some(match name.rsplit('.').next() {
            Some("qcow2") => {
                let options = Qcow2Options::new(self, LockPolicy::Take);
                Arc::new(Qcow2Image::open(storage, &options).expect("a good image"))
            }
            Some("qed") => {
                let context = ReadContext::new(&RefuseBacking, LockPolicy::Take);
                Arc::new(ReadOnlyImage::open(storage, &context).expect("a good image"))
            }
            _ => Arc::new(RawFile::open(storage).expect("a file")),
        }))
    }
}

fn map_entry(json: &serde_json::Value) -> MapEntry {
    let number = |key: &str| json[key].as_u64().expect(key);
    let flag = |key: &str| json[key].as_bool().expect(key);
    let kind = if flag("compressed") {
        GuestExtentKind::Compressed
    } else if flag("data") {
        GuestExtentKind::Data { host_offset: number("offset") }
    } else if flag("present") {
        GuestExtentKind::Zero
    } else {
        GuestExtentKind::Unallocated
    };
    MapEntry { start: number("start"), len: number("length"), depth: number("depth"), kind }
}

fn joined(entries: impl Iterator<Item = MapEntry>) -> Vec<MapEntry> {
    let mut list: Vec<MapEntry> = Vec::new();
    for entry in entries {
        match list.last_mut() {
            Some(last) if continues(last, &entry) => last.len += entry.len,
            _ => list.push(entry),
        }
    }
    list
}

fn continues(last: &MapEntry, next: &MapEntry) -> bool {
    use GuestExtentKind::Data;
    let same_kind = match (last.kind, next.kind) {
        (Data { host_offset: a }, Data { host_offset: b }) => a + last.len == b,
        (a, b) => a == b,
    };
    same_kind && last.depth == next.depth && last.start + last.len == next.start
}

/// Runs of text, noise and zeros of a few KiB each.
fn mixed_bytes(len: usize) -> Vec<u8> {
    let mut random = Random::new(1);
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let run = (512 + index(&mut random, 40_000)).min(len - bytes.len());
        match random.below(4) {
            0 => bytes.resize(bytes.len() + run, 0),
            1 => bytes.extend(noise(&mut random, run as u64)),
            _ => bytes.extend(b"the quick brown fox jumps. ".iter().cycle().take(run)),
        }
    }
    bytes
}

/// A random index below `end`.
pub(crate) fn index(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).expect("below a usize")
}
