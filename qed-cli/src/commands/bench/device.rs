//! What `bench` sends its requests to.

use std::sync::Arc;

use qed_core::{DiscardMode, Image, VirtualDisk};
use qed_engine::Engine;
use qed_io::{FileStorage, Storage};
use qed_spec::GuestOffset;

use super::requests::Action;

/// What the requests go to, and the file that holds it.
pub(super) struct Device {
    pub(super) target: Target,
    pub(super) file: Arc<FileStorage>,
    pub(super) action: Action,
}

/// How the requests are understood.
pub(super) enum Target {
    /// For reading.
    Disk(Arc<dyn VirtualDisk>),
    /// For writing.
    Qed(Arc<Image>),
    /// For writing; discards are holes, unless they are ignored.
    Raw(DiscardMode),
}

impl Device {
    pub(super) fn len(&self) -> anyhow::Result<u64> {
        Ok(match &self.target {
            Target::Disk(disk) => disk.len(),
            Target::Qed(image) => image.image_size(),
            Target::Raw(_) => self.file.len()?,
        })
    }

    /// One request of `len` bytes; reads and writes have them in a buffer.
    pub(super) fn request(&self, buffer: &mut [u8], at: u64, len: u64) -> anyhow::Result<()> {
        let guest = GuestOffset::new(at);
        match (&self.target, self.action) {
            (Target::Disk(disk), _) => disk.read_at(buffer, at)?,
            (Target::Qed(image), Action::Discard) => image.discard(guest, len)?,
            (Target::Qed(image), _) => image.write_at(buffer, guest)?,
            (Target::Raw(DiscardMode::Ignore), Action::Discard) => {}
            (Target::Raw(_), Action::Discard) => {
                self.file.punch_hole(at..at + len)?;
            }
            (Target::Raw(_), _) => self.file.write_at(buffer, at)?,
        }
        Ok(())
    }

    pub(super) fn flush(&self) -> anyhow::Result<()> {
        match &self.target {
            Target::Disk(_) => {}
            Target::Qed(image) => image.flush()?,
            Target::Raw(_) => self.file.flush()?,
        }
        Ok(())
    }

    /// Ends the use of the device; what was written is durable.
    pub(super) fn close(self) -> anyhow::Result<()> {
        match self.target {
            Target::Qed(image) => Ok(image.close()?),
            Target::Disk(_) => Ok(()),
            Target::Raw(_) => Ok(self.file.flush()?),
        }
    }

    /// A ring for up to `depth` requests in flight.
    pub(super) fn engine(&self, depth: u32) -> anyhow::Result<Engine> {
        Ok(match &self.target {
            Target::Disk(disk) => Engine::for_reading(disk.clone(), self.file.clone(), depth)?,
            Target::Qed(image) => Engine::for_image(image.clone(), depth)?,
            Target::Raw(_) => Engine::for_raw(self.file.clone(), depth)?,
        })
    }
}
