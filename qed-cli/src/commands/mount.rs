//! `mount`: an image's disk as a plain file, over FUSE.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use qed_export::server::{Export, Exports, Service};

use crate::app::Context;
use crate::failure::{Exit, usage};
use crate::service::{DiskArgs, Events, Place, ServiceArgs};

/// Show the disk of an image as a plain file.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[command(flatten)]
    mount: MountOptionArgs,
    /// Return when the file is there, and serve it from the background
    #[arg(long)]
    background: bool,
    #[command(flatten)]
    disk: DiskArgs,
    #[command(flatten)]
    service: ServiceArgs,
    /// The image, and the regular file or folder that shows its disk
    #[arg(value_names = ["FILENAME", "MOUNTPOINT"], num_args = 0..)]
    operands: Vec<OsString>,
}

/// What is said about the file that shows the disk.
#[derive(Debug, Args)]
pub(crate) struct MountOptionArgs {
    /// Let other users see the file, as its mode says
    #[arg(long)]
    allow_other: bool,
    /// Let the file be made longer, which makes the disk larger
    #[arg(long)]
    growable: bool,
}

impl MountOptionArgs {
    /// Mounts `export` and adds its server to a service.
    fn add_to(
        &self,
        _service: &mut Service,
        _export: &Arc<Export>,
        _mountpoint: &Path,
    ) -> anyhow::Result<()> {
        bail!("FUSE is not built yet")
    }
}

pub(crate) fn run(args: MountArgs, context: &Context) -> anyhow::Result<Exit> {
    args.disk.check()?;
    let [name, mountpoint] = &args.operands[..] else {
        return Err(usage("Expecting an image file name and a mount point"));
    };
    let drain = args.service.begin(context)?;
    let export = Export::new(*b"", args.disk.open(name)?);
    let place = if args.background { Place::Error } else { Place::Output };
    let events = Events::new(place, args.disk.extend_below()?);
    let mut service = args.service.service(Exports::new(vec![export])?, events, false, context)?;
    let exports = service.exports().clone();
    for export in exports.iter() {
        args.mount.add_to(&mut service, export, Path::new(mountpoint))?;
    }
    service.run(drain)?;
    Ok(Exit::SUCCESS)
}
