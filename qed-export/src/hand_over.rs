//! A disk whose image is handed over between two processes or hosts. Knows neither how an image is opened
//! nor which protocol serves it.
//!
//! *Inactive*, before the image is ours, it shows what a throw-away view of the image reads: another
//! writes it, and nothing that is read counts later. *Active*, it is the disk of the image. *Ended*, after
//! the image was handed over, it refuses.

mod gate;

use std::convert::Infallible;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qed_io::{Piece, PieceMut};

use crate::device::{
    Activity, BlockDevice, BlockSizes, Compaction, CompactionStep, DeviceError, Durability, Extent,
    Shrink, SpaceUsage, TakeOver, Zeroing,
};
use gate::{Gate, Inside, Stage};

/// How long a request that changes the disk waits for it to become active.
const PATIENCE: Duration = Duration::from_secs(30);

type Disk = Arc<dyn BlockDevice>;
type View = dyn Fn() -> Result<Disk, DeviceError> + Send + Sync;
type Own = dyn Fn(TakeOver) -> Result<Disk, DeviceError> + Send + Sync;

/// A disk that can be handed over.
///
/// While it is inactive it writes nothing and has nothing to do from time to time: reads are served,
/// changes wait up to 30 seconds, and a flush succeeds, since nothing was changed. Once it has ended reads
/// and changes get [`DeviceError::Inactive`], and a flush succeeds, since all was made durable.
// spec: QED-HAND-01, QED-HAND-04
pub struct HandOver {
    gate: Gate<Disk>,
    view: Box<View>,
    own: Box<Own>,
    /// What the last view or the image said of the disk.
    shown: Mutex<Shown>,
    compaction: Arc<Mutex<Moving>>,
}

/// What clients are told of a disk before they use it.
#[derive(Debug, Clone, Copy)]
struct Shown {
    size: u64,
    block_sizes: BlockSizes,
}

/// A compaction of the image, which must not keep it open once it is handed over.
#[derive(Default)]
struct Moving(Option<Box<dyn Compaction>>);

impl HandOver {
    /// An inactive disk. `view` opens the image for reading without a lock that keeps a writer away, as it
    /// is now and will be once its journal is replayed; `own` opens it for writing, locked, past whatever
    /// was read before. Both open the file anew each time.
    ///
    /// # Errors
    /// The first view's: there has to be an image.
    pub fn inactive(
        view: impl Fn() -> Result<Disk, DeviceError> + Send + Sync + 'static,
        own: impl Fn(TakeOver) -> Result<Disk, DeviceError> + Send + Sync + 'static,
    ) -> Result<Self, DeviceError> {
        let shown = Shown::of(&*view()?);
        Ok(Self {
            gate: Gate::new(),
            view: Box::new(view),
            own: Box::new(own),
            shown: Mutex::new(shown),
            compaction: Arc::default(),
        })
    }

    /// As [`HandOver::inactive`], and active from the start, with a `disk` as `own` opens them, of which nobody
    /// else has a copy.
    #[must_use]
    pub fn active(
        disk: Disk,
        view: impl Fn() -> Result<Disk, DeviceError> + Send + Sync + 'static,
        own: impl Fn(TakeOver) -> Result<Disk, DeviceError> + Send + Sync + 'static,
    ) -> Self {
        let shown = Shown::of(&*disk);
        let gate = Gate::new();
        let Ok(()) = gate.open(|| Ok::<_, Infallible>(disk));
        let (view, own) = (Box::new(view), Box::new(own));
        Self { gate, view, own, shown: Mutex::new(shown), compaction: Arc::default() }
    }

    /// The disk of the image, or a view that shows it while it is another's.
    fn to_read<R>(
        &self,
        mut read: impl FnMut(&dyn BlockDevice) -> Result<R, DeviceError>,
    ) -> Result<R, DeviceError> {
        if let Ok(disk) = self.now() {
            return read(&**disk);
        }
        // Whoever writes the image may have changed a table between two looks at it.
        read(&*self.shown()?).or_else(|_| read(&*self.shown()?))
    }

    /// A view of the image while it is another's.
    fn shown(&self) -> Result<Disk, DeviceError> {
        // One that has become active meanwhile may be viewed as well.
        if self.activity() == Activity::Ended {
            return Err(DeviceError::Inactive);
        }
        let view = (self.view)()?;
        *locked(&self.shown) = Shown::of(&*view);
        Ok(view)
    }

    /// The disk of the image, once it is active.
    fn to_change(&self) -> Result<Inside<'_, Disk>, DeviceError> {
        self.gate.enter().or_else(|stage| match stage {
            Stage::Awaited => self.gate.enter_until(Instant::now() + PATIENCE).map_err(refusal),
            stage => Err(refusal(stage)),
        })
    }

    /// The disk of the image, if it is active now.
    fn now(&self) -> Result<Inside<'_, Disk>, DeviceError> {
        self.gate.enter().map_err(refusal)
    }

    /// Makes all durable and closes, once for all requests and once when they have ended.
    // spec: QED-HAND-04
    fn end(&self) -> Result<(), DeviceError> {
        self.gate.shut(
            |disk| disk.flush(),
            |disk| {
                *locked(&self.shown) = Shown::of(&*disk);
                locked(&self.compaction).0 = None;
                disk.close()
            },
        )
    }
}

impl Shown {
    fn of(disk: &dyn BlockDevice) -> Self {
        Self { size: disk.size(), block_sizes: disk.block_sizes() }
    }
}

fn refusal(_: Stage) -> DeviceError {
    DeviceError::Inactive
}

impl BlockDevice for HandOver {
    fn size(&self) -> u64 {
        match self.now() {
            Ok(disk) => disk.size(),
            Err(_) => self.to_read(|view| Ok(view.size())).unwrap_or(locked(&self.shown).size),
        }
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn block_sizes(&self) -> BlockSizes {
        let shown = || locked(&self.shown).block_sizes;
        self.now().map_or_else(|_| shown(), |disk| disk.block_sizes())
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        self.to_read(|disk| disk.read_at(buf, at))
    }

    fn write_at(&self, buf: &[u8], at: u64, durability: Durability) -> Result<(), DeviceError> {
        self.to_change()?.write_at(buf, at, durability)
    }

    fn read_vectored_at(&self, pieces: &mut [PieceMut<'_>], at: u64) -> Result<(), DeviceError> {
        self.to_read(|disk| disk.read_vectored_at(pieces, at))
    }

    fn write_vectored_at(
        &self,
        pieces: &[Piece<'_>],
        at: u64,
        durability: Durability,
    ) -> Result<(), DeviceError> {
        self.to_change()?.write_vectored_at(pieces, at, durability)
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError> {
        self.to_change()?.write_zeroes(at, len, how)
    }

    fn trim(&self, at: u64, len: u64, durability: Durability) -> Result<(), DeviceError> {
        self.to_change()?.trim(at, len, durability)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        loop {
            if let Ok(disk) = self.now() {
                return disk.flush();
            }
            match self.gate.settled_stage() {
                Stage::Here => {}
                Stage::Awaited | Stage::Gone => return Ok(()),
                Stage::Lost => return Err(DeviceError::Inactive),
            }
        }
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        self.to_read(|disk| disk.extent_at(at, max_len))
    }

    fn each_extent(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), DeviceError> {
        if let Ok(disk) = self.now() {
            return disk.each_extent(range, visit);
        }
        self.shown()?.each_extent(range, visit)
    }

    fn space_usage(&self) -> Result<Option<SpaceUsage>, DeviceError> {
        self.now().map_or(Ok(None), |disk| disk.space_usage())
    }

    fn check(&self) -> Result<Option<SpaceUsage>, DeviceError> {
        self.now()?.check()
    }

    fn resize(&self, new_size: u64, shrink: Shrink) -> Result<(), DeviceError> {
        self.now()?.resize(new_size, shrink)
    }

    fn activity(&self) -> Activity {
        match self.gate.stage() {
            Stage::Awaited => Activity::Inactive,
            Stage::Here => Activity::Active,
            Stage::Gone | Stage::Lost => Activity::Ended,
        }
    }

    // spec: QED-HAND-03
    fn activate(&self, take_over: TakeOver) -> Result<(), DeviceError> {
        self.gate.open(|| (self.own)(take_over))
    }

    fn deactivate(&self) -> Result<(), DeviceError> {
        self.end()
    }

    fn compact(&self) -> Result<Option<Box<dyn Compaction>>, DeviceError> {
        let disk = self.now()?;
        let Some(begun) = disk.compact()? else { return Ok(None) };
        locked(&self.compaction).0 = Some(begun);
        Ok(Some(Box::new(Steps(Arc::clone(&self.compaction)))))
    }

    fn maintain(&self, now: Instant) -> Result<Option<Instant>, DeviceError> {
        self.now().map_or(Ok(None), |disk| disk.maintain(now))
    }

    fn close(&self) -> Result<(), DeviceError> {
        self.gate.give_up();
        self.end()?;
        match self.gate.stage() {
            // Whoever asked for that was told; who ends the server is, too.
            Stage::Lost => {
                Err(DeviceError::Failed("the image was handed over and not closed well".into()))
            }
            _ => Ok(()),
        }
    }
}

/// A compaction that ends where the image is handed over.
struct Steps(Arc<Mutex<Moving>>);

impl Compaction for Steps {
    fn step(&mut self) -> Result<CompactionStep, DeviceError> {
        locked(&self.0).0.as_mut().ok_or(DeviceError::Inactive)?.step()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        locked(&self.0).0 = None;
    }
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver").field("gate", &self.gate).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
