//! One image of a service, opened again each time that it is handed over. Knows no option by its name but
//! for what it tells people.

use std::sync::Arc;

use anyhow::{Context, bail};
use qed_core::DiscardMode;
use qed_export::{BlockDevice, DeviceError, HandOver, QedDisk, RawDisk, ReadOnlyDisk, TakeOver};
use qed_io::{Growth, LockError, Storage};

use crate::args::{CacheMode, Format, refuse_qcow2};
use crate::chain::ChainArgs;
use crate::failure::shown;
use crate::image_name::ImageName;
use crate::open::{OpenHow, WriteHow, could_not_open, open_image, storage_of};

type Disk = Arc<dyn BlockDevice>;

/// What it takes to open an image.
#[derive(Debug)]
pub(super) struct ServedImage {
    pub(super) name: ImageName,
    pub(super) chain: ChainArgs,
    pub(super) cache: CacheMode,
    pub(super) written: WriteHow,
    /// It cannot be locked, and that is known.
    pub(super) unlocked: bool,
}

impl ServedImage {
    /// The disk of an image that another server has.
    pub(super) fn inactive(self) -> anyhow::Result<HandOver> {
        // Once for its error, which says more.
        self.view()?;
        let image = Arc::new(self);
        let view = Arc::clone(&image);
        Ok(HandOver::inactive(
            move || view.view().map_err(refused),
            move |take_over| image.own(take_over).map_err(refused),
        )?)
    }

    /// The disk of an image that can be handed over to another server.
    pub(super) fn active(self) -> anyhow::Result<HandOver> {
        let disk = self.own(TakeOver::No)?;
        let image = Arc::new(self);
        let view = Arc::clone(&image);
        Ok(HandOver::active(
            disk,
            move || view.view().map_err(refused),
            move |take_over| image.own(take_over).map_err(refused),
        ))
    }

    /// Opens it for writing, locked before anything is read.
    // spec: QED-HAND-03
    pub(super) fn own(&self, take_over: TakeOver) -> anyhow::Result<Disk> {
        let WriteHow { discard, shared, .. } = self.written;
        let written = WriteHow { take_over: take_over == TakeOver::Yes, ..self.written };
        let how = OpenHow {
            cache: self.cache,
            unlocked: self.unlocked,
            afresh: shared,
            ..OpenHow::WRITE
        };
        if shared {
            self.check_shared()?;
        }
        let image = open_image(&self.name, how)?;
        refuse_qcow2(image.format(), "writing to")?;
        Ok(match image.format() {
            Format::Qed => {
                let writable = self.chain.writable_as(&image, OpenHow::read(false), written);
                let could_not_open = || could_not_open(self.name.given());
                Arc::new(QedDisk::new(writable.with_context(could_not_open)?))
            }
            Format::Raw | Format::Qcow2 => {
                let disk = RawDisk::open(storage_of(&image))?;
                Arc::new(if discard == DiscardMode::PassDown { disk.giving_back() } else { disk })
            }
        })
    }

    /// Opens it for reading, without a lock and without a trace.
    // spec: QED-HAND-01
    fn view(&self) -> anyhow::Result<Disk> {
        let how = OpenHow { cache: self.cache, afresh: self.written.shared, ..OpenHow::read(true) };
        if self.written.shared {
            self.check_shared()?;
        }
        Ok(Arc::new(ReadOnlyDisk::new(self.chain.open(&self.name, how)?.disk)))
    }

    /// Refuses to share what hosts cannot share: a device through caches, a file that cannot be locked.
    fn check_shared(&self) -> anyhow::Result<()> {
        let image = open_image(&self.name, OpenHow::read(true))?;
        let name = shown(self.name.given());
        if image.storage().growth() == Growth::Stale && self.cache != CacheMode::Direct {
            bail!(
                "'{name}' is a block device: --shared needs -t none, since each host has a cache"
            );
        }
        match image.storage().can_lock() {
            Err(error @ LockError::Unsupported(_)) if !self.unlocked => Err(error).context(format!(
                "'{name}' cannot be locked here: without locks a server that was cut off is noticed, \
                 not stopped; --no-lock goes on"
            )),
            _ => Ok(()),
        }
    }
}

/// An image that was not opened, as a reason for clients of the control socket.
fn refused(error: anyhow::Error) -> DeviceError {
    DeviceError::Refused(error.into())
}
