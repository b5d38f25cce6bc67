//! `vhost`: an image as the disk of a virtual machine, over vhost-user.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use qed_export::server::{Export, Exports, Service};

use crate::app::Context;
use crate::args::one_name;
use crate::failure::Exit;
use crate::service::{DiskArgs, Events, Place, ServiceArgs};

/// Serve an image to a virtual machine, over vhost-user.
#[derive(Debug, Args)]
pub(crate) struct VhostArgs {
    /// Listen on a Unix socket, which only this user may connect to
    #[arg(long, value_name = "PATH", required = true)]
    socket: PathBuf,
    #[command(flatten)]
    vhost: VhostOptionArgs,
    #[command(flatten)]
    disk: DiskArgs,
    #[command(flatten)]
    service: ServiceArgs,
    /// The image
    #[arg(value_name = "FILENAME")]
    operands: Vec<OsString>,
}

/// What is said about the device that the virtual machine sees.
#[derive(Debug, Args)]
pub(crate) struct VhostOptionArgs {
    /// Queues of the device, each with a thread
    #[arg(long, value_name = "COUNT")]
    queues: Option<OsString>,
    /// Requests that a queue holds, a power of two
    #[arg(long, value_name = "COUNT")]
    queue_size: Option<OsString>,
    /// Serial number that the virtual machine sees, at most 20 bytes
    #[arg(long, value_name = "SERIAL")]
    serial: Option<OsString>,
}

impl VhostOptionArgs {
    /// Adds the server of `export` to a service.
    fn add_to(
        &self,
        _service: &mut Service,
        _export: &Arc<Export>,
        _socket: &std::path::Path,
    ) -> anyhow::Result<()> {
        bail!("vhost-user is not built yet")
    }
}

pub(crate) fn run(args: VhostArgs, context: &Context) -> anyhow::Result<Exit> {
    args.disk.check()?;
    let name = one_name(&args.operands)?;
    let drain = args.service.begin(context)?;
    let export = Export::new(*b"", args.disk.open(name)?);
    let events = Events::new(Place::Output, args.disk.extend_below()?);
    let mut service = args.service.service(Exports::new(vec![export])?, events, false, context)?;
    let exports = service.exports().clone();
    for export in exports.iter() {
        args.vhost.add_to(&mut service, export, &args.socket)?;
    }
    service.run(drain)?;
    Ok(Exit::SUCCESS)
}
