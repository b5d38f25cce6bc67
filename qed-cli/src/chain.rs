//! Backing chains: what the command line says about the levels, and opening an image with all
//! below it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use qed_convert::chain::{Chain, ChainError, ChainOptions, Layer, TrustMagic};
use qed_convert::qcow2::Qcow2SnapshotSelector;
use qed_core::{Image, LockPolicy, VirtualDisk};
use qed_io::Access;

use crate::args::parse_driver;
use crate::failure::shown;
use crate::image_name::ImageName;
use crate::open::{OpenHow, WriteHow, chain_error, could_not_open, open_image, writable_qed};

/// What is said about the images below the one that is named.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct ChainArgs {
    /// Format of a backing file, once for each level of the chain from the top
    #[arg(long, value_name = "FMT")]
    backing_format: Vec<OsString>,
    /// Folder in which backing files of unstated format are taken for what their first bytes say, as
    /// they are in the folder of the image that names them; may repeat
    #[arg(long, value_name = "DIR")]
    backing_dir: Vec<PathBuf>,
    /// Take all backing files of unstated format for what their first bytes say
    #[arg(long)]
    trust_magic: bool,
}

/// An image open for reading, through its whole chain.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) disk: Arc<dyn VirtualDisk>,
    /// The images of the chain, the one that was named first.
    pub(crate) layers: Vec<Layer>,
}

impl ChainArgs {
    /// As if these formats had been stated.
    pub(crate) fn of_formats(backing_format: Vec<OsString>) -> Self {
        Self { backing_format, ..Self::default() }
    }

    /// The name of the format that is stated for the first backing file.
    pub(crate) fn first_format(&self) -> anyhow::Result<Option<String>> {
        let format = self.backing_format.first().map(|format| parse_driver(format)).transpose()?;
        Ok(format.map(|format| format.name().to_owned()))
    }

    /// Whether anything was said about backing files.
    pub(crate) fn is_given(&self) -> bool {
        self.trust_magic || !self.backing_format.is_empty() || !self.backing_dir.is_empty()
    }

    /// What is said about the images below the backing file at `depth`, which is 1 for the first.
    pub(crate) fn below(&self, depth: usize) -> Self {
        let backing_format = self.backing_format.iter().skip(depth).cloned().collect();
        Self { backing_format, ..self.clone() }
    }

    /// Refuses to write to `base` where an image names it whose own format nobody stated: its header
    /// may be a guest's, which would choose what is written to.
    pub(crate) fn refuse_far(&self, image: &Layer, base: &Layer) -> anyhow::Result<()> {
        let trust = self.options(OpenHow::read(false))?.trust_magic;
        if !image.is_recognised() || trust.reaches(image.path(), base.path())? {
            return Ok(());
        }
        bail!(
            "'{}' is not written to: the format of '{}', which names it from another folder, was \
             not stated (-f, --backing-dir or --trust-magic)",
            shown(base.path()),
            shown(image.path())
        )
    }

    /// Opens an image and its chain for reading.
    pub(crate) fn open(&self, name: &ImageName, how: OpenHow) -> anyhow::Result<Disk> {
        let image = open_image(name, how)?;
        self.open_over(image, how, None).with_context(|| could_not_open(name.given()))
    }

    /// As [`ChainArgs::open`] for an open file, perhaps for one of its internal snapshots.
    pub(crate) fn open_over(
        &self,
        image: Layer,
        how: OpenHow,
        snapshot: Option<&Qcow2SnapshotSelector>,
    ) -> anyhow::Result<Disk> {
        let top = image.path().to_path_buf();
        let chain = self.walk(image, how)?;
        let disk = chain.open(snapshot).map_err(|error| chain_error(&top, error));
        let disk =
            if snapshot.is_some() { disk.context("Failed to load snapshot")? } else { disk? };
        Ok(Disk { disk, layers: chain.layers().to_vec() })
    }

    /// Opens what is below an image; none if it names nothing.
    pub(crate) fn below_image(&self, image: Layer) -> anyhow::Result<Option<Arc<dyn VirtualDisk>>> {
        let top = image.path().to_path_buf();
        let gate = self.walk(image, OpenHow::read(false))?.gate();
        Ok(gate.map_err(|error| chain_error(&top, error))?.backing().cloned())
    }

    /// Opens a QED image whose file is open for writing, with its chain for reading.
    pub(crate) fn writable(&self, image: &Layer, how: OpenHow) -> anyhow::Result<Image> {
        self.writable_as(image, how, WriteHow::default())
    }

    /// As [`ChainArgs::writable`], written like this.
    pub(crate) fn writable_as(
        &self,
        image: &Layer,
        how: OpenHow,
        written: WriteHow,
    ) -> anyhow::Result<Image> {
        let gate = self.walk(image.clone(), how)?.gate();
        writable_qed(image, &gate.map_err(|error| chain_error(image.path(), error))?, written)
    }

    /// An image and those below it, which are to be shown and need not open as disks.
    pub(crate) fn layers(&self, image: Layer, how: OpenHow) -> anyhow::Result<Vec<Layer>> {
        let chain = Chain::below(image, &self.options(how)?).map_err(|error| match error {
            ChainError::Loop { path } => {
                anyhow!("Backing file '{}' creates an infinite loop.", shown(path))
            }
            // They name the file.
            ChainError::FormatUnstated { .. } | ChainError::TooDeep { .. } => error.into(),
            error => {
                let path = error.path().map(Path::to_path_buf).unwrap_or_default();
                chain_error(&path, error).context(could_not_open(path.as_os_str()))
            }
        });
        Ok(chain?.layers().to_vec())
    }

    /// Opens the files below an image.
    fn walk(&self, image: Layer, how: OpenHow) -> anyhow::Result<Chain> {
        let top = image.path().to_path_buf();
        Chain::below(image, &self.options(how)?).map_err(|error| match error {
            ChainError::Open { .. }
            | ChainError::Lock { .. }
            | ChainError::NotInFormat { .. }
            | ChainError::Foreign { .. } => {
                chain_error(&top, error).context("Could not open backing file")
            }
            error => chain_error(&top, error),
        })
    }

    fn options(&self, how: OpenHow) -> anyhow::Result<ChainOptions> {
        let formats = self.backing_format.iter().map(|format| parse_driver(format));
        Ok(ChainOptions {
            backing_formats: formats.collect::<anyhow::Result<_>>()?,
            trust_magic: match self.trust_magic {
                true => TrustMagic::Always,
                false => TrustMagic::Near(self.backing_dir.clone()),
            },
            lock: if how.unlocked { LockPolicy::None } else { LockPolicy::Take },
            file: OpenHow { access: Access::ReadOnly, ..how }.file_options(),
            ..ChainOptions::default()
        })
    }
}
