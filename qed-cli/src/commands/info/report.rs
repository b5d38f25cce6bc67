//! What `info` knows about one image, before it is printed.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use qed_convert::chain::{Layer, LayerHeader};
use qed_convert::qcow2::{
    LuksHeader, Qcow2Bitmap, Qcow2Header, Qcow2Image, Qcow2SnapshotInfo, UnknownFeature,
};
use qed_core::{Consistency, JournalReplay, read_owner, show_replayed};
use qed_io::{FileStorage, Storage};
use qed_spec::{AutoclearFeatures, Features, Header, ImageOwner};

use super::space::SpaceReport;
use crate::names::beside;
use crate::open::{could_not_open, storage_of, virtual_size};

/// Bits that are set while an image is open for writing.
const NOT_CLOSED: Features = Features::NEED_CHECK.union(Features::JOURNAL_ACTIVE);

/// One image of a chain.
#[derive(Debug)]
pub(super) struct ImageReport {
    /// The name it was opened by.
    pub(super) name: OsString,
    /// QEMU's name for it.
    pub(super) format: &'static str,
    /// None for a format that is only known by name.
    pub(super) virtual_size: Option<u64>,
    pub(super) file_len: u64,
    /// Bytes the file takes on its file system.
    pub(super) disk_size: u64,
    pub(super) cluster_size: Option<u64>,
    pub(super) dirty: bool,
    pub(super) encrypted: bool,
    pub(super) backing: Option<BackingReport>,
    /// Features that keep the image from being opened.
    pub(super) unknown: Vec<UnknownFeature>,
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
    Nothing,
    Qed(Box<QedReport>),
    Qcow2(Box<Qcow2Report>),
}

#[derive(Debug)]
pub(super) struct QedReport {
    pub(super) header: Header,
    /// How its tables survive a crash, or why the image cannot be written.
    pub(super) consistency: Result<Consistency, String>,
    /// Who has it open for writing, or had when its host died.
    pub(super) owner: Option<ImageOwner>,
    /// Changes that its server acknowledged and did not flush.
    pub(super) pending: u64,
    /// What waits in the journal, or why it cannot be replayed; none if the journal is empty.
    pub(super) waiting: Option<Result<JournalReplay, String>>,
    /// What its space is in use for, or why that is not known.
    pub(super) space: Result<SpaceReport, String>,
}

#[derive(Debug)]
pub(super) struct Qcow2Report {
    pub(super) header: Qcow2Header,
    pub(super) snapshots: Vec<Qcow2SnapshotInfo>,
    pub(super) bitmaps: Vec<Qcow2Bitmap>,
    /// None also where it cannot be read.
    pub(super) luks: Option<LuksHeader>,
}

impl ImageReport {
    /// What `image` says about itself.
    pub(super) fn of(image: &Layer) -> anyhow::Result<Self> {
        Self::read(image).with_context(|| could_not_open(image.path().as_os_str()))
    }

    /// What can be told of a file in a `format` that is only known by name.
    pub(super) fn of_file(
        path: &Path,
        storage: &FileStorage,
        format: &'static str,
    ) -> anyhow::Result<Self> {
        // QEMU counts a file in whole sectors.
        let len = storage.len()?;
        Ok(Self {
            name: path.as_os_str().to_owned(),
            format,
            virtual_size: None,
            file_len: len.checked_next_multiple_of(512).unwrap_or(len),
            disk_size: std::fs::metadata(path)?.blocks() * 512,
            cluster_size: None,
            dirty: false,
            encrypted: false,
            backing: None,
            unknown: Vec::new(),
            specific: Specific::Nothing,
        })
    }

    fn read(image: &Layer) -> anyhow::Result<Self> {
        let format = image.format().name();
        let raw = Self {
            virtual_size: Some(virtual_size(image)?),
            backing: BackingReport::of(image),
            unknown: image.unknown_features().to_vec(),
            ..Self::of_file(image.path(), image.storage(), format)?
        };
        Ok(match image.header() {
            LayerHeader::Raw => raw,
            LayerHeader::Qed(header) => Self {
                cluster_size: Some(header.geometry().cluster_size_bytes()),
                dirty: header.features().intersects(NOT_CLOSED),
                specific: Specific::Qed(Box::new(QedReport::of(*header, image))),
                ..raw
            },
            LayerHeader::Qcow2(header) => Self {
                cluster_size: Some(header.cluster_size()),
                dirty: header.is_dirty(),
                encrypted: header.encryption().is_some(),
                specific: Specific::Qcow2(Box::new(Qcow2Report::of(header, image)?)),
                ..raw
            },
        })
    }
}

impl QedReport {
    fn of(header: Header, image: &Layer) -> Self {
        if !image.unknown_features().is_empty() {
            let why = "it needs features that are not supported";
            let (consistency, space) = (Err(why.to_owned()), Err(why.to_owned()));
            return Self { header, consistency, owner: None, waiting: None, pending: 0, space };
        }
        let storage = &storage_of(image);
        let shown = show_replayed(storage).map_err(in_full);
        let space = match &shown {
            Ok(Some(shown)) => SpaceReport::of(&*shown.storage, &header),
            Ok(None) => SpaceReport::of(&**storage, &header),
            Err(error) => Err(error.clone()),
        };
        Self {
            header,
            consistency: Consistency::read(&**storage).map_err(in_full),
            // What keeps it from being read, the line above says.
            owner: read_owner(&**storage).unwrap_or_default(),
            pending: crate::pending::waiting(image),
            waiting: shown.map(|shown| shown.map(|shown| shown.waiting)).transpose(),
            space,
        }
    }

    /// What a conversion in place that can be undone means for a program that opens the image.
    pub(super) fn conversion(&self) -> Option<&'static str> {
        if self.header.features().contains(Features::CONVERSION_HOLD) {
            return Some(
                "conversion: QEMU cannot open it before the first write by qed, or qed \
                 convert-in-place --finalize; --undo makes it what it was",
            );
        }
        let autoclear = self.header.fields().autoclear_features;
        let can_be_undone = autoclear.contains(AutoclearFeatures::CONVERSION_UNDO);
        can_be_undone.then_some("conversion: until it is written to, --undo makes it what it was")
    }
}

/// An error with its causes.
pub(super) fn in_full(error: impl Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

impl Qcow2Report {
    /// Opens nothing but tables of the image file itself; those of an image with features that are
    /// not known could be anything.
    fn of(header: &Qcow2Header, image: &Layer) -> anyhow::Result<Self> {
        let (mut snapshots, mut bitmaps) = (Vec::new(), Vec::new());
        if image.unknown_features().is_empty() {
            snapshots = Qcow2Image::read_snapshots(&**image.storage(), header)?;
            bitmaps = header.read_bitmaps(&**image.storage())?;
        }
        let luks = header.read_luks(&**image.storage());
        Ok(Self { header: header.clone(), snapshots, bitmaps, luks })
    }
}

impl BackingReport {
    fn of(image: &Layer) -> Option<Self> {
        let name = image.backing_name()?.as_bytes();
        let format = image.backing_format().map(|format| OsString::from_vec(format.to_vec()));
        let path = beside(image.path(), name);
        Some(Self { name: OsStr::from_bytes(name).to_owned(), path, format })
    }
}
