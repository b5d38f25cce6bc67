//! Small QCOW2 images that QEMU makes, and what is done to them.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use qed_convert::in_place::{ToQed, ToQedOptions, undo};
use qed_convert::qcow2::{Qcow2Image, Qcow2Options};
use qed_core::{
    GivenBacking, Identity, Image, ImageError, LockPolicy, RecoveryPolicy, WriteContext,
};
use qed_fuzz::{SparseContent, crash_points, disk_of, raw_backing, recorded, told};
use qed_io::{Record, Storage};
use qed_spec::{Epoch, GuestOffset, ImageUuid};
use tempfile::TempDir;

const OPTIONS: ToQedOptions = ToQedOptions {
    drop_snapshots: true,
    identity: Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(8) },
};

/// What every sector of the first writes is filled with.
pub(crate) const WRITTEN: [u8; 512] = [0xee; 512];

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Convert,
    Undo,
    /// The first writes after a conversion.
    Write,
}

/// A QCOW2 image and what its disk reads as.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) start: SparseContent,
    pub(crate) disk: Vec<u8>,
    /// The bytes of the backing file.
    below: Option<Vec<u8>>,
    /// QEMU does not open what it becomes.
    pub(crate) is_held: bool,
}

/// Name, what makes `t`, and whether QEMU is kept away.
const MAKES: &[(&str, &str, bool)] = &[
    (
        "plain",
        "qemu-img create -f qcow2 -o cluster_size=4k t 3M
         qemu-io -f qcow2 -c 'write -P 1 1M 2M' -c 'write -P 2 0 1M' -c 'write -z 400k 16k' t",
        false,
    ),
    (
        "compressed",
        "qemu-img create -f qcow2 -o cluster_size=4k s 2M; qemu-io -f qcow2 -c 'write -P 1 0 1M' s
         qemu-img convert -c -f qcow2 -O qcow2 -o cluster_size=4k s t
         qemu-io -f qcow2 -c 'write -P 3 700k 9k' t",
        false,
    ),
    (
        "large clusters, compressed",
        "qemu-img create -f qcow2 s 1M; qemu-io -f qcow2 -c 'write -P 1 0 300k' s
         qemu-img convert -c -f qcow2 -O qcow2 s t; qemu-io -f qcow2 -c 'write -P 3 700k 9k' t",
        false,
    ),
    (
        "subclusters over a backing file",
        "head -c 200k /dev/urandom > base
         qemu-img create -f qcow2 -o cluster_size=16k,extended_l2=on -b base -F raw t 400k
         qemu-io -f qcow2 -c 'write -P 1 5k 3k' -c 'write -P 2 100k 64k' -c 'write -z 32k 2k' t",
        false,
    ),
    (
        "over qcow2, with a stored format",
        "head -c 200k /dev/urandom > base
         qemu-img create -f qcow2 -o cluster_size=16k -b base -F raw t 4M
         qemu-io -f qcow2 -c 'write -P 1 5k 3M' t; qemu-img rebase -u -f qcow2 -b base -F qcow2 t",
        false,
    ),
    (
        "a snapshot",
        "qemu-img create -f qcow2 -o cluster_size=4k t 3M; qemu-io -f qcow2 -c 'write -P 1 0 2M' t
         qemu-img snapshot -c one t; qemu-io -f qcow2 -c 'write -P 2 10k 1M' t",
        true,
    ),
];

pub(crate) fn all() -> Vec<Scene> {
    MAKES.iter().map(|(name, make, is_held)| Scene::new(name, make, *is_held)).collect()
}

impl Scene {
    fn new(name: &'static str, make: &str, is_held: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let ran = Command::new("sh").args(["-ec", make]).current_dir(&folder).output();
        let ran = ran.unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{name}: Debian package qemu-utils? {said}");
        let start = SparseContent::of(&std::fs::read(folder.path().join("t")).unwrap());
        let below = std::fs::read(folder.path().join("base")).ok();
        let mut scene = Self { name, start, disk: Vec::new(), below, is_held };
        scene.disk = scene.read_qcow2(&scene.start).unwrap();
        scene
    }

    /// The disk below.
    pub(crate) fn gate(&self) -> GivenBacking {
        raw_backing(self.below.as_ref())
    }

    pub(crate) fn read_qcow2(&self, state: &SparseContent) -> Result<Vec<u8>, String> {
        let gate = self.gate();
        let options = Qcow2Options::new(&gate, LockPolicy::None);
        let storage: Arc<dyn Storage> = disk_of(state);
        let image = Qcow2Image::open(storage, &options).map_err(|error| error.to_string())?;
        let mut disk = vec![0; usize::try_from(image.image_size()).unwrap()];
        image.read_at(&mut disk, GuestOffset::new(0)).map_err(|error| error.to_string())?;
        Ok(disk)
    }

    /// Does `act` to what `state` holds; the content after it, and what was done.
    pub(crate) fn act(&self, state: &SparseContent, act: Act) -> (SparseContent, Vec<Record>) {
        recorded(state, |storage| self.act_on(storage, act)).unwrap()
    }

    pub(crate) fn act_on(&self, storage: Arc<dyn Storage>, act: Act) -> Result<(), String> {
        match act {
            Act::Convert => {
                let conversion = ToQed::plan(storage, &OPTIONS).map_err(told("planning"))?;
                conversion.convert(self.gate().0.as_ref()).map_err(told("converting"))
            }
            Act::Undo => undo(&storage).map_err(told("undo")),
            Act::Write => self.write_first(storage).map_err(told("writing")),
        }
    }

    /// Sectors that the first writes after a conversion write to: over data, over zeros, and to new
    /// clusters at the end of the disk.
    pub(crate) fn first_writes(&self) -> [Range<usize>; 4] {
        let end = self.disk.len() / 512 * 512;
        let over_zeros = (404 << 10).min(end - (60 << 10));
        [
            1024..1536,
            end - (20 << 10)..end - (11 << 10),
            over_zeros..over_zeros + 3072,
            end - 512..end,
        ]
    }

    fn write_first(&self, storage: Arc<dyn Storage>) -> Result<(), ImageError> {
        let gate = self.gate();
        let context = WriteContext::new(&gate, LockPolicy::Take, RecoveryPolicy::Refuse);
        let image = Image::open(storage, &context).unwrap();
        for (number, range) in self.first_writes().into_iter().enumerate() {
            let bytes = WRITTEN.repeat(range.len() / 512);
            image.write_at(&bytes, GuestOffset::new(range.start as u64))?;
            if number == 2 {
                image.flush()?;
            }
        }
        image.close()
    }

    /// States with what an interrupted conversion leaves: one of each crash point.
    pub(crate) fn interrupted(&self) -> Vec<SparseContent> {
        let (_, run) = self.act(&self.start, Act::Convert);
        let points = crash_points(&self.start, &run);
        let mut states = Vec::new();
        for point in &points {
            let mut last = None;
            point.for_each_state(16, |state| last = Some(state).or(last.take()));
            states.extend(last.filter(|state| state.to_vec().starts_with(b"QFI")));
        }
        states
    }

    /// Runs `act` with the state in a file, its backing file beside it.
    pub(crate) fn with_file(&self, state: &SparseContent, act: impl FnOnce(&Path)) {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("t");
        std::fs::write(&file, state.to_vec()).unwrap();
        if let Some(below) = &self.below {
            std::fs::write(folder.path().join("base"), below).unwrap();
        }
        act(&file);
    }
}
