//! The images of a service as block devices: opened, locked and named.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use qed::{Keeps, PendingLost};
use qed_core::DiscardMode;
use qed_export::{BlockDevice, ReadOnlyDisk, TakeOver, WriteThrough};

use super::served_image::ServedImage;
use crate::args::{CacheMode, discard_mode, option_size};
use crate::chain::ChainArgs;
use crate::failure::shown;
use crate::image_name::NameArgs;
use crate::open::{OpenHow, WriteHow};

/// How the images of a service are opened.
#[derive(Debug, Args)]
pub(crate) struct DiskArgs {
    /// Refuse every change
    #[arg(short, long)]
    pub(crate) read_only: bool,
    /// Format of the images; without it QED and QCOW2 are recognised by their first bytes
    #[arg(short, long, value_name = "FMT")]
    format: Option<OsString>,
    #[command(flatten)]
    chain: ChainArgs,
    /// Cache mode; writethrough and directsync make each write durable before it is acknowledged
    #[arg(short = 't', long, value_name = "CACHE")]
    cache: Option<OsString>,
    /// What becomes of space that clients trim or zero: reuse (the default) keeps it for later writes,
    /// pass-down gives it back to the file system or device as well, ignore leaves it where it is
    #[arg(long, value_name = "MODE")]
    discard: Option<OsString>,
    /// What becomes of an image whose last server was killed, where what it acknowledged is lost: refuse
    /// (the default) does not serve it, fail-flush serves it and fails the first flush, accept serves it
    #[arg(long, value_name = "WHAT")]
    pending_lost: Option<OsString>,
    /// Write a line of JSON when an image on a block device has less room than this left, free space
    /// included, and again only when it had more meanwhile
    #[arg(long, value_name = "SIZE")]
    extend_below: Option<OsString>,
    /// Take no lock: the image may be in use. Only with --read-only
    #[arg(short = 'U', long)]
    force_share: bool,
    /// Begin without the image, which another server has, and wait for 'activate' on the control socket:
    /// until then reads show what is in the image, changes wait, and nothing is written
    #[arg(long)]
    inactive: bool,
    /// Other hosts serve the image too, one at a time, and locks may not reach them: look past caches
    /// whether it is still ours before each write of tables. On a block device only with -t none. Where no
    /// lock reaches, a server that was cut off is noticed, not stopped: what it has in flight lands, and
    /// fencing it is the task of whoever manages the hosts
    #[arg(long)]
    shared: bool,
    /// Take no lock with --shared, where the file system has none
    #[arg(long, requires = "shared")]
    no_lock: bool,
    #[command(flatten)]
    named: NameArgs,
}

/// The options, understood.
#[derive(Debug, Clone, Copy)]
struct How {
    cache: CacheMode,
    discard: DiscardMode,
    lost: PendingLost,
}

impl DiskArgs {
    /// Refuses what is refused by name.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.named.refused.check()?;
        self.how()?;
        self.extend_below()?;
        if self.read_only && (self.inactive || self.shared) {
            bail!("--inactive and --shared are for images that are written");
        }
        Ok(())
    }

    /// Less room than this is told.
    pub(crate) fn extend_below(&self) -> anyhow::Result<Option<u64>> {
        let below = self.extend_below.as_deref();
        below.map(|size| option_size("extend-below", &shown(size))).transpose()
    }

    /// Whether the image is read and written past the page cache.
    pub(crate) fn is_direct(&self) -> anyhow::Result<bool> {
        Ok(self.how()?.cache == CacheMode::Direct)
    }

    fn how(&self) -> anyhow::Result<How> {
        let Some(cache) = CacheMode::by_name(self.cache.as_deref()) else {
            bail!("Invalid cache mode");
        };
        let lost = match self.pending_lost.as_deref().map(OsStr::as_encoded_bytes) {
            None | Some(b"refuse") => PendingLost::Refuse,
            Some(b"fail-flush") => PendingLost::FailFlush,
            Some(b"accept") => PendingLost::Accept,
            Some(_) => bail!("Invalid pending-lost option"),
        };
        Ok(How { cache, discard: discard_mode(self.discard.as_deref())?, lost })
    }

    /// Opens and locks an image; one that `can_be_handed_over`, so that it can be closed and opened again.
    pub(crate) fn open(
        &self,
        name: &OsStr,
        can_be_handed_over: bool,
    ) -> anyhow::Result<Arc<dyn BlockDevice>> {
        if self.inactive && !can_be_handed_over {
            bail!("--inactive needs --control: only a request on that socket activates the image");
        }
        if self.read_only {
            return self.open_to_read(name);
        }
        if self.force_share {
            bail!("-U can only be used with --read-only");
        }
        let image = self.image(name)?;
        let disk: Arc<dyn BlockDevice> = match (self.inactive, can_be_handed_over) {
            (true, _) => Arc::new(image.inactive()?),
            (false, true) => Arc::new(image.active()?),
            (false, false) => image.own(TakeOver::No)?,
        };
        let on_device = || anyhow::Ok(disk.space_usage()?.and_then(|usage| usage.capacity));
        if self.extend_below.is_some() && !self.inactive && on_device()?.is_none() {
            let name = shown(name);
            bail!("'{name}' is no QED image on a block device, which --extend-below is for");
        }
        if CacheMode::is_write_through(self.cache.as_deref()) {
            return Ok(Arc::new(WriteThrough::new(disk)));
        }
        Ok(disk)
    }

    /// The image that is named `name`, not opened yet.
    fn image(&self, name: &OsStr) -> anyhow::Result<ServedImage> {
        let How { cache, discard, lost } = self.how()?;
        Ok(ServedImage {
            name: self.named.image(name, self.format.as_deref())?,
            chain: self.chain.clone(),
            cache,
            written: WriteHow {
                discard,
                keeps: Keeps::Owner,
                lost,
                shared: self.shared,
                take_over: false,
            },
            unlocked: self.no_lock,
        })
    }

    fn open_to_read(&self, name: &OsStr) -> anyhow::Result<Arc<dyn BlockDevice>> {
        if self.extend_below.is_some() {
            bail!("--extend-below is for images that are written");
        }
        let named = self.named.image(name, self.format.as_deref())?;
        let how = OpenHow { cache: self.how()?.cache, ..OpenHow::read(self.force_share) };
        Ok(Arc::new(ReadOnlyDisk::new(self.chain.open(&named, how)?.disk)))
    }
}

/// What clients call an image: by the name that is given, the only one by none, else by its file name.
pub(crate) fn export_name<'n>(
    image: &'n OsStr,
    given: Option<&'n OsString>,
    is_alone: bool,
) -> &'n OsStr {
    match given {
        Some(given) => given,
        None if is_alone => OsStr::new(""),
        None => Path::new(image).file_name().unwrap_or(image),
    }
}
