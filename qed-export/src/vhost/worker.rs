//! The thread of a queue: waits for kicks, serves what is there, and interrupts the driver.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::event::{Event, wait};
use super::queue::{Broken, Queue};
use super::serving::Serving;
use crate::server::contained;

/// How long the driver waits at most to hear of a request that is done, while others are served.
const PATIENCE: Duration = Duration::from_micros(50);
/// How often a ring is looked at whose driver cannot kick.
const POLL: Duration = Duration::from_millis(1);

/// What a queue is woken by, and what it wakes; all from the frontend.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// None where the ring is to be looked at by itself.
    pub(super) kick: Option<Event>,
    pub(super) call: Mutex<Option<Event>>,
    pub(super) error: Mutex<Option<Event>>,
}

impl Lines {
    /// The same with another kick; these are not used any more.
    pub(super) fn with_kick(&self, kick: Option<Event>) -> Self {
        let taken = |line: &Mutex<Option<Event>>| {
            Mutex::new(line.lock().unwrap_or_else(PoisonError::into_inner).take())
        };
        Self { kick, call: taken(&self.call), error: taken(&self.error) }
    }

    /// Puts another descriptor in the place of one.
    pub(super) fn replace(line: &Mutex<Option<Event>>, by: Option<Event>) {
        *line.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    fn set(line: &Mutex<Option<Event>>) {
        let line = line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = line.as_ref().map(Event::set) {
            tracing::debug!(%error, "the frontend is not woken");
        }
    }
}

/// A queue that is being served.
#[derive(Debug)]
pub(super) struct Worker {
    thread: JoinHandle<Stopped>,
    end: Arc<End>,
    is_broken: Arc<AtomicBool>,
}

/// Where a queue stood when its worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stopped {
    /// The index of the next head to take.
    pub(super) base: u16,
    /// Whether the driver broke the rules of its ring.
    pub(super) is_broken: bool,
}

#[derive(Debug)]
struct End {
    is_wanted: AtomicBool,
    event: Event,
}

impl Worker {
    /// Starts to serve.
    pub(super) fn start(queue: Queue, lines: Arc<Lines>, index: usize) -> io::Result<Self> {
        let end = Arc::new(End { is_wanted: AtomicBool::new(false), event: Event::new()? });
        let is_broken = Arc::default();
        let (ending, breaking) = (Arc::clone(&end), Arc::clone(&is_broken));
        let thread = Builder::new().name(format!("vhost-queue-{index}"));
        let thread = thread.spawn(move || {
            // What is in flight belongs to the thread that has it.
            let serving = Serving::new(queue);
            Work { serving, lines, end: ending, is_broken: breaking }.run()
        })?;
        Ok(Self { thread, end, is_broken })
    }

    /// Whether the driver broke the rules of its ring.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// Ends when every request that was taken has been given back.
    pub(super) fn stop(self) -> Stopped {
        self.end.is_wanted.store(true, Ordering::Release);
        if let Err(error) = self.end.event.set() {
            tracing::error!(%error, "a queue is not told to end");
        }
        // It contains what panics.
        self.thread.join().unwrap_or_default()
    }
}

/// What the thread has.
struct Work {
    serving: Serving,
    lines: Arc<Lines>,
    end: Arc<End>,
    is_broken: Arc<AtomicBool>,
}

impl Work {
    fn run(mut self) -> Stopped {
        let broken = match contained(|| self.serve()) {
            Ok(Ok(())) => None,
            Ok(Err(broken)) => {
                // What was taken before is not to blame.
                let _ = contained(|| self.serving.settle());
                Some(broken.to_string())
            }
            Err(panicked) => Some(panicked.to_string()),
        };
        if let Some(why) = &broken {
            tracing::warn!(%why, "a queue is broken, and serves nothing before its driver resets it");
            self.is_broken.store(true, Ordering::Release);
            // What was given back before is.
            Lines::set(&self.lines.call);
            Lines::set(&self.lines.error);
        }
        Stopped { base: self.serving.queue().base(), is_broken: broken.is_some() }
    }

    fn serve(&mut self) -> Result<(), Broken> {
        // Whoever served it before may have given back what nobody was told of.
        Lines::set(&self.lines.call);
        let mut kick = self.lines.kick.is_some();
        loop {
            self.serve_all()?;
            if self.is_ending() {
                self.serving.settle()?;
                self.tell()?;
                if !self.serving.queue().has_left() {
                    return Ok(());
                }
                continue;
            }
            let is_full = self.serving.is_full();
            if !is_full && self.serving.queue().ask_for_kicks()? {
                continue;
            }
            let (end, ended) = (&self.end.event, self.serving.completion_fd()?);
            let ready = match &self.lines.kick {
                Some(line) if kick && !is_full => wait(line, end, ended, None)?,
                Some(_) => wait(end, end, ended, None)?,
                None => wait(end, end, ended, Some(POLL))?,
            };
            if ready.first_is_gone {
                tracing::warn!("the descriptor that kicks a queue is none");
                kick = false;
            }
            if let (true, Some(line)) = (ready.first, &self.lines.kick) {
                line.clear();
            }
        }
    }

    /// Serves what is there, and tells the driver as it wants to be told.
    fn serve_all(&mut self) -> Result<(), Broken> {
        self.serving.queue().ask_for_no_kicks()?;
        loop {
            let (since, mut is_idle) = (Instant::now(), true);
            while self.may_begin() && self.serving.begin_next()? {
                is_idle = false;
                if since.elapsed() >= PATIENCE {
                    break;
                }
            }
            while self.serving.end_next()? {
                is_idle = false;
            }
            self.tell()?;
            if is_idle {
                return Ok(());
            }
        }
    }

    /// When it is to end, only what another server took is left to be taken.
    fn may_begin(&mut self) -> bool {
        !self.is_ending() || self.serving.queue().has_left()
    }

    fn tell(&mut self) -> Result<(), Broken> {
        let queue = self.serving.queue();
        if queue.has_untold() && queue.wants_interrupt()? {
            Lines::set(&self.lines.call);
        }
        Ok(())
    }

    fn is_ending(&self) -> bool {
        self.end.is_wanted.load(Ordering::Acquire)
    }
}
