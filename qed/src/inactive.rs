//! An image that another process or host has, and how it is handed over. Knows no protocol by which it is
//! told when.

use std::path::{Path, PathBuf};

use qed_core::LockPolicy;

use crate::error::Error;
use crate::image::Image;
use crate::options::Options;

/// An image that another process or host writes, until it is handed over to this one; made by
/// [`Options::inactive`].
///
/// It has no file open and no lock, writes nothing, and nothing that is read through it counts later.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("vm.qed");
/// let source = qed::Image::options().create(&path, 1 << 30)?;
/// // Where a machine is to go on, as soon as it is prepared there:
/// let destination = qed::Image::options().inactive(&path);
/// let mut sector = [0; 512];
/// destination.view()?.read_at(&mut sector, 0)?;
/// assert!(destination.activate().is_err());
///
/// // Where it runs, once it is stopped; then where it goes on:
/// source.deactivate()?;
/// let disk = destination.activate()?;
/// disk.write_at(b"goes on", 0)?;
/// disk.deactivate()?;
/// # Ok::<(), qed::Error>(())
/// ```
// spec: QED-HAND-01
#[derive(Debug, Clone)]
pub struct Inactive<'a> {
    path: PathBuf,
    options: Options<'a>,
}

impl<'a> Options<'a> {
    /// The image at `path`, which another process or host has open. There may be none yet.
    pub fn inactive(self, path: impl AsRef<Path>) -> Inactive<'a> {
        Inactive { path: path.as_ref().to_path_buf(), options: self }
    }
}

impl Inactive<'_> {
    /// The image as it is now and would be once it is recovered, for reading, to be thrown away after
    /// use: what its owner writes later is not in it, or only in part.
    ///
    /// # Errors
    /// As [`Options::open`], but that nobody's lock is in the way.
    pub fn view(&self) -> Result<Image, Error> {
        let open = || self.options.clone().read_only().lock(LockPolicy::None).open(&self.path);
        // The owner may have changed a table between two looks at it.
        open().or_else(|_| open())
    }

    /// Opens the image for writing, anew and locked before anything is read. One whose owner died is
    /// recovered first, as with [`Options::recover`].
    ///
    /// # Errors
    /// As [`Options::open`]; [`crate::ErrorKind::Locked`] while its owner has it, and where the image names an
    /// owner that no lock reaches. It stays inactive then, and this can be tried again.
    // spec: QED-HAND-03
    pub fn activate(&self) -> Result<Image, Error> {
        self.options.clone().recover().open(&self.path)
    }

    /// As [`Inactive::activate`], of an image whose owner on another host is known not to write any more:
    /// it was cut off from the storage. One that does write destroys the image.
    ///
    /// # Errors
    /// As [`Inactive::activate`]; a lock that somebody has is in the way still.
    pub fn take_over(&self) -> Result<Image, Error> {
        self.options.clone().taking_over().recover().open(&self.path)
    }
}

impl Image {
    /// Hands the image over: makes everything durable, leaves it closed and without an owner, and gives the
    /// lock back. Another process or host finds an image that needs no check, and what is written or flushed
    /// here afterwards fails. A flush while the machine still runs leaves less to do.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; [`Error::InUse`] where a request is in flight: the image is closed, but may be
    /// written and stays locked, until this is called again once the request has ended. Else as
    /// [`Image::close`]: the image stays open and ours.
    // spec: QED-HAND-04
    pub fn deactivate(&self) -> Result<(), Error> {
        let Some(core) = self.core() else { return Err(Error::ReadOnly) };
        self.close()?;
        // A request that begins after this look finds the image closed.
        if core.has_requests() {
            return Err(Error::InUse);
        }
        // It may have ended after the look of `close`.
        self.close()
    }
}
