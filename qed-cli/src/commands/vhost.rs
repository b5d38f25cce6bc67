//! `vhost`: an image as the disk of a virtual machine, over vhost-user.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use qed_export::server::{Export, Exports, Listener, Service};
use qed_export::vhost::{MAX_QUEUE_SIZE, Server, VhostOptions};

use crate::app::Context;
use crate::args::{number_in, one_name};
use crate::failure::{Exit, shown, usage};
use crate::service::{DiskArgs, Events, Place, ServiceArgs};

/// Serve an image to a virtual machine, over vhost-user.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct VhostArgs {
    /// Listen on a Unix socket, which only this user may connect to
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
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

/// What a driver gets of a serial number.
const MAX_SERIAL_BYTES: usize = 20;

/// What is said about the device that the virtual machine sees.
#[derive(Debug, Args)]
pub(crate) struct VhostOptionArgs {
    /// The most queues that the virtual machine may have, 1 to 256 (default 64); each that it uses has a
    /// thread
    #[arg(long, value_name = "COUNT")]
    queues: Option<OsString>,
    /// Descriptors of a queue as the virtual machine monitor makes it, a power of two (default 128): a
    /// request has as many segments less two
    #[arg(long, value_name = "COUNT")]
    queue_size: Option<OsString>,
    /// Serial number that the virtual machine sees, at most 20 bytes
    #[arg(long, value_name = "SERIAL")]
    serial: Option<OsString>,
}

const NOTES: &str = r#"The socket is for the virtual machine monitor: QEMU, cloud-hypervisor, crosvm or libkrun. When the
server listens it prints the path. One virtual machine has the disk at a time; when it goes, or the
server was started anew, it may connect again. A socket that a dead server left behind is replaced.

The virtual machine sees a disk with a write cache: what was flushed is durable. It may switch the
cache off, and is told when the disk is resized (--control).

The memory of the virtual machine has to be shared with the server, as in the example.

SIGTERM and SIGINT end the server: requests that were taken go on for as long as --drain says (30
seconds), then the image is flushed and closed. A second signal, a second later or more, ends it at
once. SIGUSR2 compacts a QED image beside the virtual machine.

Examples:
  qed vhost --socket /run/vm.vhost --queues 4 -f qed vm.qed
  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on
      -machine q35,memory-backend=mem -chardev socket,id=disk,path=/run/vm.vhost,reconnect-ms=1000
      -device vhost-user-blk-pci,chardev=disk,num-queues=4

Exit codes:
  0  the server was ended, and the image is closed
  1  any error"#;

impl VhostOptionArgs {
    /// Whether any was stated.
    pub(crate) fn is_given(&self) -> bool {
        self.queues.is_some() || self.queue_size.is_some() || self.serial.is_some()
    }

    /// What they say.
    pub(crate) fn options(&self) -> anyhow::Result<VhostOptions> {
        let mut options = VhostOptions::default();
        if let Some(count) = &self.queues {
            options.queues = u16::try_from(number_in(count, "queue count", 1..=256)?)?;
        }
        if let Some(size) = &self.queue_size {
            let most = u64::from(MAX_QUEUE_SIZE);
            options.queue_size = u16::try_from(number_in(size, "queue size", 4..=most)?)?;
        }
        if let Some(serial) = &self.serial {
            options.serial = shown(serial);
        }
        if options.serial.len() > MAX_SERIAL_BYTES {
            bail!("A serial number has at most {MAX_SERIAL_BYTES} bytes");
        }
        if !options.are_valid() {
            bail!("The size of a queue is a power of two");
        }
        Ok(options)
    }
}

/// Adds the server of `export` to a service.
pub(crate) fn add_to(
    service: &mut Service,
    export: &Arc<Export>,
    socket: &Path,
    options: VhostOptions,
) -> anyhow::Result<()> {
    let listener = Listener::unix(socket)?;
    service.add(Server::new(Arc::clone(export), vec![listener], options)?);
    Ok(())
}

pub(crate) fn run(args: VhostArgs, context: &Context) -> anyhow::Result<Exit> {
    args.disk.check()?;
    let image = one_name(&args.operands)?;
    let Some(socket) = &args.socket else { return Err(usage("Expecting --socket")) };
    let options = args.vhost.options()?;
    let drain = args.service.begin(context)?;
    let disk = args.disk.open(image, args.service.can_hand_over())?;
    let exports = Exports::new(vec![Export::new("", disk)])?;
    let events = Events::new(Place::Output, args.disk.extend_below()?);
    let mut service = args.service.service(exports.clone(), events, false, context)?;
    for export in exports.iter() {
        add_to(&mut service, export, socket, options.clone())?;
    }
    context.console.print_now([socket.as_os_str().as_bytes(), b"\n"].concat())?;
    service.run(drain)?;
    Ok(Exit::SUCCESS)
}
