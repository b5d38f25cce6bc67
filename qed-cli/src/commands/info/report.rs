//! What `info` knows about one image, before it is printed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;

use anyhow::Context;
use qed_convert::{Qcow2Bitmap, Qcow2Header, Qcow2Image, Qcow2Options, Qcow2SnapshotInfo};
use qed_core::LockPolicy;
use qed_io::Storage;
use qed_spec::{Features, Header};

use crate::args::Format;
use crate::names::beside;
use crate::open::{ImageFile, LeaveBacking, could_not_open};

/// One image of a chain.
#[derive(Debug)]
pub(super) struct ImageReport {
    /// The name it was opened by.
    pub(super) name: OsString,
    pub(super) format: Format,
    pub(super) virtual_size: u64,
    pub(super) file_len: u64,
    /// Bytes the file takes on its file system.
    pub(super) disk_size: u64,
    pub(super) cluster_size: Option<u64>,
    pub(super) dirty: bool,
    pub(super) backing: Option<BackingReport>,
    pub(super) specific: Specific,
}

/// The backing file that an image names.
#[derive(Debug)]
pub(super) struct BackingReport {
    /// The name as the image has it.
    pub(super) name: OsString,
    /// The name seen from here.
    pub(super) path: OsString,
    /// The format as the image has it.
    pub(super) format: Option<OsString>,
}

/// What only one format has.
#[derive(Debug)]
pub(super) enum Specific {
    Raw,
    Qed(Header),
    Qcow2(Box<Qcow2Report>),
}

#[derive(Debug)]
pub(super) struct Qcow2Report {
    pub(super) header: Qcow2Header,
    pub(super) snapshots: Vec<Qcow2SnapshotInfo>,
    pub(super) bitmaps: Vec<Qcow2Bitmap>,
}

impl ImageReport {
    /// Reads what `file` says about itself.
    pub(super) fn of(file: &ImageFile) -> anyhow::Result<Self> {
        let report = match file.format {
            Format::Raw => Self::of_raw(file),
            Format::Qed => Self::of_qed(file),
            Format::Qcow2 => Self::of_qcow2(file),
        };
        report.with_context(|| could_not_open(file.path.as_os_str()))
    }

    fn of_raw(file: &ImageFile) -> anyhow::Result<Self> {
        // QEMU counts a file in whole sectors.
        let len = file.storage.len()?;
        let file_len = len.checked_next_multiple_of(512).unwrap_or(len);
        Ok(Self {
            name: file.path.clone().into_os_string(),
            format: file.format,
            virtual_size: file.virtual_size()?,
            file_len,
            disk_size: disk_size(file)?,
            cluster_size: None,
            dirty: false,
            backing: None,
            specific: Specific::Raw,
        })
    }

    fn of_qed(file: &ImageFile) -> anyhow::Result<Self> {
        let image = file.metadata_of_qed()?;
        let header = image.header();
        let no_probe = header.features().contains(Features::BACKING_FORMAT_NO_PROBE);
        let backing = image
            .backing_name()
            .map(|name| BackingReport::new(file, name, no_probe.then(|| OsString::from("raw"))));
        Ok(Self {
            virtual_size: image.image_size(),
            cluster_size: Some(header.geometry().cluster_size_bytes()),
            dirty: header.features().contains(Features::NEED_CHECK),
            backing,
            specific: Specific::Qed(header),
            ..Self::of_raw(file)?
        })
    }

    fn of_qcow2(file: &ImageFile) -> anyhow::Result<Self> {
        let options = Qcow2Options::new(&LeaveBacking, LockPolicy::None);
        let image = Qcow2Image::open(file.shared(), &options)?;
        let header = image.header().clone();
        let backing = header.backing_name().map(|name| {
            let format = header.backing_format().map(|format| OsString::from_vec(format.to_vec()));
            BackingReport::new(file, name.as_bytes().to_vec(), format)
        });
        let specific = Specific::Qcow2(Box::new(Qcow2Report {
            bitmaps: image.read_bitmaps()?,
            snapshots: image.snapshots().to_vec(),
            header: header.clone(),
        }));
        Ok(Self {
            virtual_size: image.image_size(),
            cluster_size: Some(header.cluster_size()),
            dirty: header.is_dirty(),
            backing,
            specific,
            ..Self::of_raw(file)?
        })
    }
}

impl BackingReport {
    fn new(file: &ImageFile, name: Vec<u8>, format: Option<OsString>) -> Self {
        let path = beside(&file.path, &name);
        Self { name: OsStr::from_bytes(&name).to_owned(), path, format }
    }
}

fn disk_size(file: &ImageFile) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(&file.path)?.blocks() * 512)
}
