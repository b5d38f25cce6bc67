//! What `bench` sends its requests to.

use std::sync::Arc;

use qed_core::{Image, VirtualDisk};
use qed_engine::Engine;
use qed_io::{FileStorage, Storage};
use qed_spec::GuestOffset;

/// What the requests go to, and the file that holds it.
pub(super) struct Device {
    pub(super) target: Target,
    pub(super) file: Arc<FileStorage>,
}

/// How the requests are understood.
pub(super) enum Target {
    /// For reading.
    Disk(Arc<dyn VirtualDisk>),
    /// For writing.
    Qed(Arc<Image>),
    /// For writing.
    Raw,
}

impl Device {
    pub(super) fn len(&self) -> anyhow::Result<u64> {
        Ok(match &self.target {
            Target::Disk(disk) => disk.len(),
            Target::Qed(image) => image.image_size(),
            Target::Raw => self.file.len()?,
        })
    }

    pub(super) fn transfer(&self, buffer: &mut [u8], at: u64) -> anyhow::Result<()> {
        match &self.target {
            Target::Disk(disk) => disk.read_at(buffer, at)?,
            Target::Qed(image) => image.write_at(buffer, GuestOffset::new(at))?,
            Target::Raw => self.file.write_at(buffer, at)?,
        }
        Ok(())
    }

    pub(super) fn flush(&self) -> anyhow::Result<()> {
        match &self.target {
            Target::Disk(_) => {}
            Target::Qed(image) => image.flush()?,
            Target::Raw => self.file.flush()?,
        }
        Ok(())
    }

    /// Ends the use of the device; what was written is durable.
    pub(super) fn close(self) -> anyhow::Result<()> {
        match self.target {
            Target::Qed(image) => Ok(image.close()?),
            Target::Disk(_) => Ok(()),
            Target::Raw => Ok(self.file.flush()?),
        }
    }

    /// A ring for up to `depth` requests in flight.
    pub(super) fn engine(&self, depth: u32) -> anyhow::Result<Engine> {
        Ok(match &self.target {
            Target::Disk(disk) => Engine::for_reading(disk.clone(), self.file.clone(), depth)?,
            Target::Qed(image) => Engine::for_image(image.clone(), depth)?,
            Target::Raw => Engine::for_raw(self.file.clone(), depth)?,
        })
    }
}
