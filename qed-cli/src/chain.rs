//! Backing chains: which formats were stated for the levels, and opening an image with all below.
//!
//! No level is guessed: a format is stated on the command line, or by the image itself, or accepted
//! by its magic on the user's word (`--trust-magic`), and then that image may name no further file.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use qed_convert::{Qcow2Header, Qcow2Image, Qcow2Options, Qcow2SnapshotSelector};
use qed_core::{
    BackingFile, BackingGate, BackingRequest, GateError, Image, LockPolicy, RawFile, ReadContext,
    ReadOnlyImage,
};
use qed_io::FileStorage;
use qed_spec::Features;

use crate::args::Format;
use crate::failure::shown;
use crate::names::{beside, protocol};
use crate::open::{ImageFile, OpenHow, could_not_open};

/// What is said about the images below the one that is named.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct ChainArgs {
    /// Format of a backing file, once for each level of the chain from the top
    #[arg(long, value_name = "FMT")]
    backing_format: Vec<OsString>,
    /// Take backing files of unstated format for what their first bytes say
    #[arg(long)]
    trust_magic: bool,
}

/// Longest chain that is opened.
const MAX_DEPTH: usize = 200;

/// An image open for reading, through its whole chain.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) disk: Arc<dyn BackingFile>,
    /// The images of the chain, the one that was named first.
    pub(crate) layers: Vec<Layer>,
    /// The backing file that the last of them names and that was left out.
    pub(crate) hidden_backing: Option<OsString>,
}

/// What is below an image.
struct Lower {
    /// None where there is no backing file.
    disk: Option<Arc<dyn BackingFile>>,
    /// From the last one up.
    layers: Vec<Layer>,
}

/// One image of a chain.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: OsString,
    pub(crate) format: Format,
    pub(crate) storage: Arc<FileStorage>,
    /// The format was accepted by its magic.
    pub(crate) recognised: bool,
    /// Bytes of its virtual disk.
    pub(crate) len: u64,
}

impl ChainArgs {
    /// As if these formats had been stated.
    pub(crate) fn of_formats(backing_format: Vec<OsString>) -> Self {
        Self { backing_format, trust_magic: false }
    }

    /// Whether anything was said about backing files.
    pub(crate) fn is_given(&self) -> bool {
        self.trust_magic || !self.backing_format.is_empty()
    }

    /// What is said about the images below the backing file at `depth`, which is 1 for the first.
    pub(crate) fn below(&self, depth: usize) -> Self {
        let backing_format = self.backing_format.iter().skip(depth).cloned().collect();
        Self { backing_format, trust_magic: self.trust_magic }
    }

    /// Opens an image and its chain for reading.
    pub(crate) fn open(
        &self,
        name: &OsStr,
        format: Option<&OsStr>,
        how: OpenHow,
    ) -> anyhow::Result<Disk> {
        let file = ImageFile::open(name, format, how)?;
        self.open_file(&file, how, None).with_context(|| could_not_open(name))
    }

    /// As [`ChainArgs::open`] for an open file, perhaps for one of its internal snapshots.
    pub(crate) fn open_file(
        &self,
        file: &ImageFile,
        how: OpenHow,
        snapshot: Option<Qcow2SnapshotSelector>,
    ) -> anyhow::Result<Disk> {
        let Lower { disk: below, mut layers } = self.open_lower(file, how)?;
        let disk = open_layer(file, below, snapshot, &mut layers)?;
        layers.reverse();
        Ok(Disk { disk, layers, hidden_backing: None })
    }

    /// Opens a QED image whose file is open for writing, with its chain for reading.
    pub(crate) fn writable(&self, file: &ImageFile, how: OpenHow) -> anyhow::Result<Image> {
        let lower = self.open_lower(file, how)?;
        file.writable_qed(&Below(lower.disk))
    }

    /// Opens all that is below an image file.
    fn open_lower(&self, top: &ImageFile, how: OpenHow) -> anyhow::Result<Lower> {
        let mut lower = Lower { disk: None, layers: Vec::new() };
        for file in self.files_below(top, how)?.iter().rev() {
            lower.disk = Some(open_layer(file, lower.disk, None, &mut lower.layers)?);
        }
        Ok(lower)
    }

    /// The files below `top`, from the top down.
    fn files_below(&self, top: &ImageFile, how: OpenHow) -> anyhow::Result<Vec<ImageFile>> {
        let how = OpenHow { access: qed_io::Access::ReadOnly, ..how };
        let mut seen = HashSet::from([top.storage.identity()]);
        let mut files: Vec<ImageFile> = Vec::new();
        loop {
            let image = files.last().unwrap_or(top);
            let Some(backing) = Named::by(image)? else { return Ok(files) };
            if files.len() >= MAX_DEPTH {
                bail!("The backing chain has more than {MAX_DEPTH} images");
            }
            let format = self.format_of(files.len(), image, &backing)?;
            let file = ImageFile::try_open(&backing.path, format.as_deref(), how)
                .context("Could not open backing file")?;
            if !seen.insert(file.storage.identity()) {
                bail!("Backing file '{}' creates an infinite loop.", shown(&backing.path));
            }
            files.push(file);
        }
    }

    /// The format of the backing file at `level`, which `image` names; none to trust its magic.
    fn format_of(
        &self,
        level: usize,
        image: &ImageFile,
        backing: &Named,
    ) -> anyhow::Result<Option<OsString>> {
        if let Some(stated) = self.backing_format.get(level) {
            return Ok(Some(stated.clone()));
        }
        let name = shown(&backing.path);
        if image.recognised {
            let seen = image.format.name();
            bail!(
                "'{image}' was taken for {seen} by its first bytes, so its backing file '{name}' \
                 is not opened: state its format with -f {seen}, or that of the backing file with \
                 --backing-format",
                image = shown(&image.path)
            );
        }
        match &backing.format {
            Some(format) => Ok(Some(format.clone())),
            None if self.trust_magic => Ok(None),
            None => bail!(
                "the format of backing file '{name}' is not stated: use --backing-format or \
                 --trust-magic"
            ),
        }
    }
}

/// Opens an image without what is below it.
pub(crate) fn open_alone(file: &ImageFile) -> anyhow::Result<Disk> {
    let mut layers = Vec::new();
    let disk = open_layer(file, None, None, &mut layers)?;
    let hidden_backing = Named::by(file)?.map(|named| named.path);
    Ok(Disk { disk, layers, hidden_backing })
}

/// A backing file as an image names it.
struct Named {
    path: OsString,
    format: Option<OsString>,
}

impl Named {
    fn by(image: &ImageFile) -> anyhow::Result<Option<Self>> {
        let (name, format) = match image.format {
            Format::Raw => return Ok(None),
            Format::Qed => {
                let qed = image.metadata_of_qed()?;
                let no_probe = qed.header().features().contains(Features::BACKING_FORMAT_NO_PROBE);
                (qed.backing_name(), no_probe.then(|| OsString::from("raw")))
            }
            Format::Qcow2 => {
                let header = Qcow2Header::read(&*image.storage)?;
                let format = header.backing_format().map(|f| OsString::from_vec(f.to_vec()));
                (header.backing_name().map(|name| name.as_bytes().to_vec()), format)
            }
        };
        let Some(name) = name else { return Ok(None) };
        if let Some(protocol) = protocol(&name)
            && protocol != b"file"
        {
            bail!("Unknown protocol '{}'", shown(OsStr::from_bytes(protocol)));
        }
        Ok(Some(Self { path: beside(&image.path, &name), format }))
    }
}

fn open_layer(
    file: &ImageFile,
    below: Option<Arc<dyn BackingFile>>,
    snapshot: Option<Qcow2SnapshotSelector>,
    layers: &mut Vec<Layer>,
) -> anyhow::Result<Arc<dyn BackingFile>> {
    if snapshot.is_some() && file.format != Format::Qcow2 {
        bail!("Failed to load snapshot: {} images have no snapshots to read", file.format.name());
    }
    let gate = Below(below);
    let disk: Arc<dyn BackingFile> = match file.format {
        Format::Raw => Arc::new(RawFile::open(file.shared())?),
        Format::Qed => {
            let context = ReadContext::new(&gate, LockPolicy::None);
            Arc::new(ReadOnlyImage::open(file.shared(), &context)?)
        }
        Format::Qcow2 => {
            let options = Qcow2Options { snapshot, ..Qcow2Options::new(&gate, LockPolicy::None) };
            Arc::new(Qcow2Image::open(file.shared(), &options)?)
        }
    };
    layers.push(Layer {
        name: file.path.clone().into_os_string(),
        format: file.format,
        storage: Arc::clone(&file.storage),
        recognised: file.recognised,
        len: disk.len(),
    });
    Ok(disk)
}

/// Hands out what is open already.
struct Below(Option<Arc<dyn BackingFile>>);

impl BackingGate for Below {
    fn open_backing(
        &self,
        _request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn BackingFile>>, GateError> {
        Ok(self.0.clone())
    }
}
