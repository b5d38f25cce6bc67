//! One frontend, from its first message to its last: what it negotiates, its queues, and their workers.
//! Knows no socket beside the one for what the server tells by itself.
//!
//! A change of what a running queue works with stops its worker, which gives back every request that it
//! took, and starts another: so no queue ever sees half of a change, and the paths of requests hold no lock.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::SendFlags;
use thiserror::Error;

use super::channel;
use super::config::{self, VhostOptions};
use super::event::Event;
use super::inflight::{Inflight, InflightError, Shape};
use super::log::DirtyLog;
use super::memory::{MAX_REGIONS, Memory, MemoryError, RegionInfo, Shared};
use super::message::{self, InflightInfo, Message};
use super::queue::{Broken, Disk, Negotiated, Queue};
use super::ring::{MAX_QUEUE_SIZE, Ring, RingAddress, RingError};
use super::wire::{feature, protocol, status};
use super::worker::{Lines, Worker};
use crate::device::DeviceError;

/// The protocol features that the server offers.
const PROTOCOL_FEATURES: u64 = protocol::MULTI_QUEUE
    | protocol::LOG_SHARED
    | protocol::REPLY_ACK
    | protocol::BACKEND_CHANNEL
    | protocol::CONFIG
    | protocol::INFLIGHT
    | protocol::RESET_DEVICE
    | protocol::MEMORY_SLOTS
    | protocol::STATUS;

/// Why a message is not obeyed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum SessionError {
    #[error("there is no queue {0}")]
    NoQueue(u32),
    #[error("a queue of {0} descriptors: a power of two up to {MAX_QUEUE_SIZE} is one")]
    Size(u32),
    #[error("an index of {0}: a ring has 16 bits for it")]
    Base(u32),
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("{got} descriptors came where {want} belong")]
    Descriptors { got: usize, want: usize },
    #[error("the configuration space cannot be changed so")]
    Config,
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Inflight(#[from] InflightError),
    #[error("queue {index} cannot be served")]
    Queue {
        index: usize,
        #[source]
        source: Broken,
    },
    #[error("what was written is not durable")]
    Flush(#[from] DeviceError),
    #[error("the system refused")]
    Io(#[from] io::Error),
}

/// What the server answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// A reply that belongs to the message.
    Reply(Vec<u8>, Option<OwnedFd>),
    /// It is obeyed; a frontend that asked is told.
    Done,
}

/// The state that a frontend has built up.
#[derive(Debug)]
pub(super) struct Session<'s> {
    disk: &'s Arc<Disk>,
    options: &'s VhostOptions,
    features: u64,
    protocol: u64,
    status: u8,
    memory: Memory,
    log: Option<Arc<DirtyLog>>,
    inflight: Option<Arc<Inflight>>,
    backend_channel: Option<OwnedFd>,
    /// The size of the disk that the frontend knows.
    told_size: u64,
    queues: Vec<QueueState>,
}

/// What is known of a queue.
#[derive(Debug, Default)]
struct QueueState {
    size: u16,
    address: Option<RingAddress>,
    base: u16,
    is_enabled: bool,
    /// From the message with the kick to the one that asks for the base.
    is_started: bool,
    is_broken: bool,
    lines: Arc<Lines>,
    worker: Option<Worker>,
}

impl<'s> Session<'s> {
    pub(super) fn new(disk: &'s Arc<Disk>, options: &'s VhostOptions) -> Self {
        disk.write_cache.set(true);
        Self {
            disk,
            options,
            features: 0,
            protocol: 0,
            status: 0,
            memory: Memory::default(),
            log: None,
            inflight: None,
            backend_channel: None,
            told_size: disk.export.device().size(),
            queues: (0..options.queues).map(|_| QueueState::default()).collect(),
        }
    }

    /// Does what a message says.
    pub(super) fn obey(
        &mut self,
        message: Message,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, SessionError> {
        let number = |value: u64| Ok(Answer::Reply(value.to_le_bytes().to_vec(), None));
        match message {
            Message::GetFeatures => return number(config::features(&**self.disk.export.device())),
            Message::GetProtocolFeatures => return number(PROTOCOL_FEATURES),
            Message::GetQueueCount => return number(u64::from(self.options.queues)),
            Message::GetMaxRegions => return number(MAX_REGIONS as u64),
            Message::GetStatus => return number(u64::from(self.status())),
            Message::GetConfig { offset, len, flags } => {
                return Ok(Answer::Reply(self.config(offset, len, flags), None));
            }
            Message::GetInflight(info) => return self.make_inflight(info),
            Message::GetBase { queue } => return self.stop_queue(queue),
            Message::SetLogBase { len, offset } => {
                self.set_log(only(descriptors)?, offset, len)?;
                let body = [len.to_le_bytes(), offset.to_le_bytes()].concat();
                return Ok(Answer::Reply(body, None));
            }
            Message::Owner | Message::SetLogDescriptor => {}
            Message::SetFeatures(features) => self.set_features(features)?,
            Message::SetProtocolFeatures(features) => {
                if features & !PROTOCOL_FEATURES != 0 {
                    return Err(SessionError::Features(features));
                }
                self.protocol = features;
            }
            Message::SetMemoryTable(regions) => self.set_memory(&regions, descriptors)?,
            Message::AddRegion(info) => {
                let memory = self.memory.with(info, only(descriptors)?.into())?;
                self.change_all(|session| session.memory = memory)?;
            }
            Message::RemoveRegion(info) => {
                let memory = self.memory.without(info)?;
                self.change_all(|session| session.memory = memory)?;
            }
            Message::SetBackendChannel => self.backend_channel = Some(only(descriptors)?),
            Message::SetConfig { offset, bytes } => {
                let is_on = config::write_cache_of(offset, &bytes).ok_or(SessionError::Config)?;
                self.set_write_cache(is_on)?;
            }
            Message::SetInflight(info) => self.set_inflight(info, only(descriptors)?)?,
            Message::ResetDevice => self.reset(),
            Message::SetStatus(value) => {
                self.status = u8::try_from(value & 0xff).unwrap_or(0);
                if self.status == 0 {
                    self.reset();
                }
            }
            of_queue => self.obey_for_queue(of_queue, descriptors)?,
        }
        Ok(Answer::Done)
    }

    fn obey_for_queue(
        &mut self,
        message: Message,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), SessionError> {
        match message {
            Message::SetSize { queue, size } => {
                let fits = |size: &u16| size.is_power_of_two() && *size <= MAX_QUEUE_SIZE;
                let found = u16::try_from(size).ok().filter(fits);
                let size = found.ok_or(SessionError::Size(size))?;
                self.change(queue, |state| state.size = size)
            }
            Message::SetAddress { queue, address } => {
                self.change(queue, |state| state.address = Some(address))
            }
            Message::SetBase { queue, index } => {
                let base = u16::try_from(index).map_err(|_| SessionError::Base(index))?;
                self.change(queue, |state| state.base = base)
            }
            Message::SetEnabled { queue, is_enabled } => {
                self.change(queue, |state| state.is_enabled = is_enabled)
            }
            Message::SetKick { queue, has_descriptor } => {
                let kick = optional(has_descriptor, descriptors)?;
                self.change(queue, |state| {
                    state.lines = Arc::new(state.lines.with_kick(kick));
                    state.is_started = true;
                    state.is_broken = false;
                })
            }
            Message::SetCall { queue, has_descriptor } => {
                let line = optional(has_descriptor, descriptors)?;
                Lines::replace(&self.queue(queue)?.1.lines.call, line);
                Ok(())
            }
            Message::SetError { queue, has_descriptor } => {
                let line = optional(has_descriptor, descriptors)?;
                Lines::replace(&self.queue(queue)?.1.lines.error, line);
                Ok(())
            }
            // What is about the whole session was obeyed before.
            _ => Ok(()),
        }
    }

    /// The disk may have another size: tells the frontend, which tells the guest.
    pub(super) fn disk_changed(&mut self) {
        let size = self.disk.export.device().size();
        if std::mem::replace(&mut self.told_size, size) == size {
            return;
        }
        let Some(channel) = &self.backend_channel else {
            return tracing::warn!(
                "the frontend takes no news: the guest is not told of a new size"
            );
        };
        let news = message::notice(message::CONFIG_CHANGED);
        if let Err(error) = channel::send(channel, &news, None, SendFlags::DONTWAIT) {
            tracing::warn!(%error, "the frontend is not told of a new size");
        }
    }

    /// Gives back every request that was taken, and serves none.
    pub(super) fn end(&mut self) {
        self.queues.iter_mut().for_each(QueueState::pause);
    }

    fn status(&self) -> u8 {
        let broken = self.queues.iter().any(QueueState::is_broken);
        self.status | if broken { status::NEEDS_RESET } else { 0 }
    }

    fn config(&self, offset: u32, len: u32, flags: u32) -> Vec<u8> {
        let device = &**self.disk.export.device();
        let space = config::space(device, self.options, self.disk.write_cache.is_on());
        let part = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        // The message says that they lie inside.
        let bytes = part.and_then(|(offset, len)| space.get(offset..offset.checked_add(len)?));
        let head = [offset, len, flags].map(u32::to_le_bytes).concat();
        [&head, bytes.unwrap_or_default()].concat()
    }

    fn set_features(&mut self, features: u64) -> Result<(), SessionError> {
        if features & !config::features(&**self.disk.export.device()) != 0 {
            return Err(SessionError::Features(features));
        }
        if features == self.features {
            return Ok(());
        }
        self.change_all(|session| session.features = features)
    }

    fn set_memory(
        &mut self,
        regions: &[RegionInfo],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), SessionError> {
        let (got, want) = (descriptors.len(), regions.len());
        if got != want {
            return Err(SessionError::Descriptors { got, want });
        }
        let mut memory = Memory::default();
        for (info, descriptor) in regions.iter().zip(descriptors) {
            memory = memory.with(*info, File::from(descriptor))?;
        }
        self.change_all(|session| session.memory = memory)
    }

    fn set_log(&mut self, descriptor: OwnedFd, offset: u64, len: u64) -> Result<(), SessionError> {
        let log = DirtyLog::new(Shared::new(descriptor.into(), offset, len)?);
        self.change_all(|session| session.log = Some(Arc::new(log)))
    }

    /// The write cache of the guest is on or off; what was done with it on becomes durable first.
    fn set_write_cache(&mut self, is_on: bool) -> Result<(), SessionError> {
        self.change_all(|session| {
            session.disk.write_cache.set(is_on);
            if let Some(inflight) = &session.inflight {
                inflight.keep_write_cache(is_on);
            }
        })?;
        if is_on { Ok(()) } else { Ok(self.disk.export.device().flush()?) }
    }

    fn make_inflight(&self, info: InflightInfo) -> Result<Answer, SessionError> {
        let made = Shape::new(info.queues, info.size, self.options.queues)
            .and_then(|shape| Ok((shape, shape.make()?)));
        match made {
            Ok((shape, file)) => {
                let info = InflightInfo { len: shape.bytes(), offset: 0, ..info };
                Ok(Answer::Reply(info.bytes().to_vec(), Some(file.into())))
            }
            Err(error) => {
                // By the protocol no memory at all says that there is none.
                tracing::warn!(%error, "requests in flight are not kept");
                let info = InflightInfo { len: 0, offset: 0, ..info };
                Ok(Answer::Reply(info.bytes().to_vec(), None))
            }
        }
    }

    fn set_inflight(
        &mut self,
        info: InflightInfo,
        descriptor: OwnedFd,
    ) -> Result<(), SessionError> {
        let shape = Shape::new(info.queues, info.size, self.options.queues)?;
        let inflight = Inflight::new(shape, descriptor.into(), info.offset, info.len)?;
        match inflight.write_cache() {
            Some(is_on) => self.disk.write_cache.set(is_on),
            None => inflight.keep_write_cache(self.disk.write_cache.is_on()),
        }
        self.change_all(|session| session.inflight = Some(Arc::new(inflight)))
    }

    /// Stops a queue when what it took is given back, and tells where it stands.
    fn stop_queue(&mut self, queue: u32) -> Result<Answer, SessionError> {
        let (_, state) = self.queue(queue)?;
        state.pause();
        state.is_started = false;
        state.lines = Arc::default();
        let body = [queue, u32::from(state.base)].map(u32::to_le_bytes).concat();
        Ok(Answer::Reply(body, None))
    }

    /// As the driver finds the device when it begins. Memory and the session stay, and so does the write
    /// cache: frontends keep their copy of the configuration, by which a guest that finds none never
    /// flushes.
    fn reset(&mut self) {
        for state in &mut self.queues {
            state.pause();
            *state = QueueState::default();
        }
        self.status = 0;
        self.features = 0;
    }

    fn queue(&mut self, queue: u32) -> Result<(usize, &mut QueueState), SessionError> {
        let index = usize::try_from(queue).unwrap_or(usize::MAX);
        let state = self.queues.get_mut(index).ok_or(SessionError::NoQueue(queue))?;
        Ok((index, state))
    }

    /// Changes what one queue works with.
    fn change(
        &mut self,
        queue: u32,
        act: impl FnOnce(&mut QueueState),
    ) -> Result<(), SessionError> {
        let (index, state) = self.queue(queue)?;
        state.pause();
        act(state);
        self.go_on(index)
    }

    /// Changes what all queues work with.
    fn change_all(&mut self, act: impl FnOnce(&mut Self)) -> Result<(), SessionError> {
        self.queues.iter_mut().for_each(QueueState::pause);
        act(self);
        (0..self.queues.len()).try_for_each(|index| self.go_on(index))
    }

    /// Starts the worker of a queue, if it is to run.
    fn go_on(&mut self, index: usize) -> Result<(), SessionError> {
        let state = &self.queues[index];
        // Without protocol features there are no messages that enable.
        let is_enabled = state.is_enabled || self.features & feature::PROTOCOL == 0;
        let Some(address) = state.address.filter(|_| is_enabled && state.runs()) else {
            return Ok(());
        };
        let ring = Ring::new(
            &self.memory,
            state.size,
            &address,
            self.features & feature::EVENT_INDEX != 0,
        );
        let queue = ring.map_err(Broken::from).and_then(|ring| self.queue_of(index, ring));
        let started = queue.map_err(|source| SessionError::Queue { index, source });
        let lines = Arc::clone(&state.lines);
        self.queues[index].worker = Some(Worker::start(started?, lines, index)?);
        Ok(())
    }

    fn queue_of(&self, index: usize, ring: Ring) -> Result<Queue, Broken> {
        let number = u16::try_from(index).map_err(|_| RingError::Gone)?;
        let inflight = self.inflight.as_ref().and_then(|inflight| inflight.of_queue(number));
        let log = self.log.as_ref().filter(|_| self.features & feature::LOG_ALL != 0);
        let negotiated = Negotiated {
            takes_indirect: self.features & feature::INDIRECT != 0,
            flushes: self.features & feature::FLUSH != 0,
        };
        let (disk, memory) = (Arc::clone(self.disk), self.memory.clone());
        let base = self.queues[index].base;
        Queue::new(disk, memory, log.cloned(), negotiated, ring, base, inflight)
    }
}

impl QueueState {
    fn runs(&self) -> bool {
        self.is_started && !self.is_broken && self.size != 0
    }

    fn is_broken(&self) -> bool {
        self.is_broken || self.worker.as_ref().is_some_and(Worker::is_broken)
    }

    /// Stops the worker when it has given back what it took.
    fn pause(&mut self) {
        if let Some(worker) = self.worker.take() {
            let stopped = worker.stop();
            self.is_broken |= stopped.is_broken;
            self.base = stopped.base;
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The only descriptor of a message.
fn only(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, SessionError> {
    let got = descriptors.len();
    match <[OwnedFd; 1]>::try_from(descriptors) {
        Ok([descriptor]) => Ok(descriptor),
        Err(_) => Err(SessionError::Descriptors { got, want: 1 }),
    }
}

/// The line that comes with a message, if it says so.
fn optional(
    has_descriptor: bool,
    descriptors: Vec<OwnedFd>,
) -> Result<Option<Event>, SessionError> {
    match (has_descriptor, descriptors.len()) {
        (true, _) => Ok(Some(Event::shared(only(descriptors)?)?)),
        (false, 0) => Ok(None),
        (false, got) => Err(SessionError::Descriptors { got, want: 0 }),
    }
}
