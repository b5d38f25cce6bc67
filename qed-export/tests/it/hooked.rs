//! Disks that do what a test wants before a call: panic, which no disk should, or wait.

use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use qed_export::{
    Activity, BlockDevice, BlockSizes, DeviceError, Durability, Extent, TakeOver, Zeroing,
};

use crate::client::raw_disk;

/// Far longer than any test takes: what is not let go by then fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Size,
    /// A read of so many bytes.
    Read(usize),
    Write(usize),
    Flush,
    Maintain,
    Close,
}

type Hook = Box<dyn Fn(Call) -> Result<(), DeviceError> + Send + Sync>;

struct Hooked {
    disk: Arc<dyn BlockDevice>,
    hook: Hook,
    hand_over: Option<Mutex<Activity>>,
}

/// A disk, one of whose calls panics, and which counts in `closed` that it was closed.
pub(crate) fn disk_that_panics(call: Call, closed: &Arc<AtomicUsize>) -> Arc<dyn BlockDevice> {
    let closed = Arc::clone(closed);
    let hook = move |met| {
        closed.fetch_add(usize::from(met == Call::Close), Ordering::Relaxed);
        assert!(call != met, "as the test wants it: {call:?}");
        Ok(())
    };
    Arc::new(Hooked { disk: raw_disk(), hook: Box::new(hook), hand_over: None })
}

/// A disk that stalls reads and writes of `long` bytes or more, and what they wait for.
pub(crate) fn disk_that_stalls(long: u32) -> (Arc<dyn BlockDevice>, Arc<Stall>) {
    stalling(move |call| match call {
        Call::Read(len) | Call::Write(len) => len >= long as usize,
        _ => false,
    })
}

/// A disk that stalls flushes.
pub(crate) fn disk_that_stalls_flushes() -> (Arc<dyn BlockDevice>, Arc<Stall>) {
    stalling(|call| call == Call::Flush)
}

fn stalling(
    is_stalled: impl Fn(Call) -> bool + Send + Sync + 'static,
) -> (Arc<dyn BlockDevice>, Arc<Stall>) {
    let stall = Arc::new(Stall::default());
    let here = Arc::clone(&stall);
    let hook = move |call| match is_stalled(call) {
        true if !here.pass() => Err(DeviceError::Failed("nobody let it go".into())),
        _ => Ok(()),
    };
    (Arc::new(Hooked { disk: raw_disk(), hook: Box::new(hook), hand_over: None }), stall)
}

/// A disk that is inactive, and seems a sector shorter than it is until it is taken over; another owns
/// its image, so that it takes the word of the caller.
pub(crate) fn disk_for_hand_over() -> Arc<dyn BlockDevice> {
    let hand_over = Some(Mutex::new(Activity::Inactive));
    Arc::new(Hooked { disk: raw_disk(), hook: Box::new(|_| Ok(())), hand_over })
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

impl Debug for Hooked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooked").field(&self.disk).finish()
    }
}

impl BlockDevice for Hooked {
    fn size(&self) -> u64 {
        (self.hook)(Call::Size).expect("no error here");
        self.disk.size() - if self.activity() == Activity::Inactive { 512 } else { 0 }
    }

    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    fn block_sizes(&self) -> BlockSizes {
        self.disk.block_sizes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        (self.hook)(Call::Read(buf.len()))?;
        self.disk.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64, durability: Durability) -> Result<(), DeviceError> {
        (self.hook)(Call::Write(buf.len()))?;
        self.disk.write_at(buf, at, durability)
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError> {
        self.disk.write_zeroes(at, len, how)
    }

    fn trim(&self, at: u64, len: u64, durability: Durability) -> Result<(), DeviceError> {
        self.disk.trim(at, len, durability)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        (self.hook)(Call::Flush)?;
        self.disk.flush()
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        self.disk.extent_at(at, max_len)
    }

    fn activity(&self) -> Activity {
        self.hand_over.as_ref().map_or(Activity::Active, |now| *now.lock().expect("no panic"))
    }

    fn activate(&self, take_over: TakeOver) -> Result<(), DeviceError> {
        let Some(now) = &self.hand_over else { return self.disk.activate(take_over) };
        if take_over == TakeOver::No {
            return Err(DeviceError::Refused("another owns it".into()));
        }
        *now.lock().expect("no panic") = Activity::Active;
        Ok(())
    }

    fn deactivate(&self) -> Result<(), DeviceError> {
        let Some(now) = &self.hand_over else { return self.disk.deactivate() };
        *now.lock().expect("no panic") = Activity::Ended;
        Ok(())
    }

    fn maintain(&self, now: Instant) -> Result<Option<Instant>, DeviceError> {
        (self.hook)(Call::Maintain)?;
        self.disk.maintain(now)
    }

    fn close(&self) -> Result<(), DeviceError> {
        (self.hook)(Call::Close)?;
        self.disk.close()
    }
}
