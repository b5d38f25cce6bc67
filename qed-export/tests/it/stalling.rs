//! A disk whose long requests wait until the test lets them go.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use qed_export::{BlockDevice, BlockSizes, DeviceError, Durability, Extent, Zeroing};

use crate::client::raw_disk;

/// Far longer than any test takes: what is not let go by then fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk that stalls reads and writes of `long` bytes or more.
#[derive(Debug)]
pub(crate) struct Stalling {
    disk: Box<dyn BlockDevice>,
    long: usize,
    stall: Arc<Stall>,
}

/// Where the long requests wait.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Expected,
    Reached,
    Open,
}

impl Stalling {
    /// The disk, and what its long requests wait for.
    pub(crate) fn disk(long: u32) -> (Box<dyn BlockDevice>, Arc<Stall>) {
        let stall = Arc::new(Stall::default());
        let disk = Self { disk: raw_disk(), long: long as usize, stall: Arc::clone(&stall) };
        (Box::new(disk), stall)
    }

    fn pass(&self, len: usize) -> Result<(), DeviceError> {
        if len < self.long || self.stall.pass() {
            Ok(())
        } else {
            Err(DeviceError::Failed("nobody let it go".into()))
        }
    }
}

impl Stall {
    /// Waits until a long request is here.
    pub(crate) fn wait_until_reached(&self) {
        assert!(self.wait_while(State::Expected), "no long request came");
    }

    /// Lets all go, those here and those to come.
    pub(crate) fn let_go(&self) {
        self.set(State::Open);
    }

    fn pass(&self) -> bool {
        let is_first = *self.state.lock().expect("no panic") == State::Expected;
        if is_first {
            self.set(State::Reached);
        }
        self.wait_while(State::Reached)
    }

    fn set(&self, state: State) {
        *self.state.lock().expect("no panic") = state;
        self.changed.notify_all();
    }

    fn wait_while(&self, state: State) -> bool {
        let guard = self.state.lock().expect("no panic");
        let waited = self.changed.wait_timeout_while(guard, PATIENCE, |now| *now == state);
        !waited.expect("no panic").1.timed_out()
    }
}

impl BlockDevice for Stalling {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    fn block_sizes(&self) -> BlockSizes {
        self.disk.block_sizes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        self.pass(buf.len())?;
        self.disk.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64, durability: Durability) -> Result<(), DeviceError> {
        self.pass(buf.len())?;
        self.disk.write_at(buf, at, durability)
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError> {
        self.disk.write_zeroes(at, len, how)
    }

    fn trim(&self, at: u64, len: u64, durability: Durability) -> Result<(), DeviceError> {
        self.disk.trim(at, len, durability)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.disk.flush()
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        self.disk.extent_at(at, max_len)
    }

    fn maintain(&self, now: Instant) -> Result<Option<Instant>, DeviceError> {
        self.disk.maintain(now)
    }

    fn close(self: Box<Self>) -> Result<(), DeviceError> {
        self.disk.close()
    }
}
