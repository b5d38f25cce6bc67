//! Copying a virtual disk into a new image file, whatever its format.

use std::ffi::OsStr;
use std::sync::Arc;

use anyhow::bail;
use qed_convert::chain::Layer;
use qed_convert::{ConvertOptions, NewBacking, Summary, Target, convert};
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, NewHeaderArea, VirtualDisk, header_area,
};
use qed_io::{FileKind, Storage};

use crate::app::Context;
use crate::args::{CacheMode, Format};
use crate::failure::shown;
use crate::names::path_of;
use crate::new_file::NewFile;
use crate::new_image::NewImage;
use crate::open::is_same_file;
use crate::work::Work;

/// What the new image is to look like.
#[derive(Debug)]
pub(crate) struct Copy<'a> {
    pub(crate) image: &'a NewImage,
    /// The files that are read: none of them may be the new one, which is emptied.
    pub(crate) inputs: &'a [Layer],
    pub(crate) cache: CacheMode,
    pub(crate) backing: Option<NewBacking>,
    pub(crate) compress: bool,
}

/// Copies `source` into a new file; a file that was made for nothing is gone. What is durable when
/// this returns, the options and the cache mode say.
pub(crate) fn copy_to_new(
    source: &dyn VirtualDisk,
    output: &OsStr,
    copy: &Copy<'_>,
    options: &ConvertOptions,
    work: Work<'_>,
    context: &Context,
) -> anyhow::Result<Summary> {
    // Options that cannot be written are found before an existing file is emptied.
    let area = copy.check(source.len())?;
    // Locks keep that from happening only where they are taken.
    let path = path_of(output)?;
    if copy.inputs.iter().any(|input| is_same_file(input, &path)) {
        bail!("'{}' is read by this call: it cannot be replaced", shown(&path));
    }
    let file = NewFile::create(output, copy.cache)?;
    if let Some(area) = area.filter(|_| file.storage().kind() == FileKind::BlockDevice) {
        // Before anything on it is changed.
        area.on_device(file.storage().len()?)?;
    }
    let copied = copy.target(file.shared(), source.len()).and_then(|target| {
        let copied = convert(source, target, options, &work);
        work.finish(copied)
    });
    match copied {
        Ok(summary) => {
            file.keep()?;
            Ok(summary)
        }
        Err(error) => {
            context.console.error(&file.fate());
            Err(error)
        }
    }
}

impl Copy<'_> {
    /// Whether there can be such an image of `len` bytes; the header area of a QED image.
    fn check(&self, len: u64) -> anyhow::Result<Option<NewHeaderArea>> {
        match self.image.format {
            Format::Raw => self.image.refuse_preallocation().map(|()| None),
            Format::Qed => {
                self.image.refuse_preallocation()?;
                let backing = self.backing.as_ref().map(|backing| CreateBacking {
                    name: backing.name.clone(),
                    format: BackingFormat::Unstated,
                });
                let (geometry, layout) = (self.image.geometry()?, self.image.layout()?);
                let options = CreateOptions { geometry, image_size: len, backing, layout };
                Ok(Some(header_area(&options)?))
            }
            Format::Qcow2 => self.image.qcow2(len, self.backing.clone()).map(|_| None),
        }
    }

    fn target(&self, storage: Arc<dyn Storage>, len: u64) -> anyhow::Result<Target<'static>> {
        let backing = self.backing.clone();
        Ok(match self.image.format {
            Format::Raw => Target::Raw(storage),
            Format::Qed => {
                let (geometry, layout) = (self.image.geometry()?, self.image.layout()?);
                Target::Qed { storage, geometry, layout, backing }
            }
            Format::Qcow2 => Target::Qcow2 {
                storage,
                options: self.image.qcow2(len, backing)?,
                compress: self.compress,
            },
        })
    }
}
