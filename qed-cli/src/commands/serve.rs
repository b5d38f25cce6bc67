//! `serve`: images as NBD exports, and one image over several protocols.

mod address;
mod parent;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use qed_export::fuse::MountOptions;
use qed_export::nbd::{Limits, Server, TlsFiles, TlsIdentity};
use qed_export::server::{Export, Exports, StopHandle};

use super::mount::MountOptionArgs;
use super::vhost::{self, VhostOptionArgs};
use crate::app::Context;
use crate::args::number_in;
use crate::failure::{Exit, usage};
use crate::service::{DiskArgs, Events, Place, ServiceArgs, export_name};
use address::{listen, uris};
use parent::Parent;

/// Serve images to virtual machines and other programs, over NBD and more.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct ServeArgs {
    /// Listen on a Unix socket, which only this user may connect to
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Listen on a TCP port; port 0 is one that is free
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Name of an export, once for each image
    #[arg(long, value_name = "NAME")]
    name: Vec<OsString>,
    /// Serve the image to a virtual machine as well, over vhost-user: listen on this Unix socket
    #[arg(long, value_name = "PATH")]
    vhost_socket: Option<PathBuf>,
    #[command(flatten)]
    vhost: VhostOptionArgs,
    /// Show the disk of the image as a file as well, over this file or in this folder (FUSE)
    #[arg(long = "mount", value_name = "MOUNTPOINT")]
    mount_point: Option<PathBuf>,
    #[command(flatten)]
    mount: MountOptionArgs,
    #[command(flatten)]
    disks: DiskArgs,
    /// The server's certificate (PEM): with it and --tls-key clients must use TLS
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Who signs the certificates of clients (PEM): with it a client without one is refused
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Listen without TLS where other machines can connect
    #[arg(long)]
    unencrypted: bool,
    /// End when the program that started the server has ended, as is done anyway with sockets that it
    /// handed over
    #[arg(long)]
    exit_with_parent: bool,
    /// End when the last client has gone, once one has been given a disk
    #[arg(long)]
    once: bool,
    /// Connections at a time
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<OsString>,
    /// Requests of one connection that are served at a time
    #[arg(long, value_name = "COUNT")]
    threads: Option<OsString>,
    #[command(flatten)]
    service: ServiceArgs,
    /// The images
    #[arg(value_name = "FILENAME")]
    operands: Vec<OsString>,
}

const NOTES: &str = r#"When the server listens it prints the address of each export as a URI. One image is the export
without a name, several are called by their file names, unless --name says otherwise.

Without --socket and --listen, and without another protocol, the sockets are used that the program was started with, as systemd
and libnbd do it. Then nothing is printed, and the server ends with whoever started it: nobody else
knows of it. A socket that a dead server left behind is replaced.

SIGTERM and SIGINT end the server: nobody new is let in, requests that were sent are answered for as
long as --drain says (30 seconds), and the images are flushed and closed. So does --exit-with-parent
when the program that started the server has ended, and --once when its last client has gone. A
second signal, a second later or more, ends it at once.

With --discard pass-down what is trimmed of a raw disk becomes holes of its file; otherwise it keeps
its space. unmap and on are pass-down, off is ignore, as qemu-nbd has them.

--extend-below is for QED images on block devices, such as logical volumes, that are grown while they
are served. Room is looked at once a second. The line is an event:
  {"event":"space-low", "export":"", "end":N, "free":N, "capacity":N, "below":N}

SIGUSR2 compacts the QED images beside their clients: what is stored is moved into free space, and the
files get shorter. When that has ended an event says what came of it:
  {"event":"compacted", "export":"", "end-before":N, "end":N, "moved":N,
  "held-back":{"busy":N, "tables":N}}
Events go to standard output, or to standard error where the sockets were handed over.

What a server acknowledged outlives it: when it is killed, the next one on this host finds all writes,
flushed or not, in a log in memory, which lies in $QED_RUNTIME_DIR, else in /run/qed,
$XDG_RUNTIME_DIR/qed or /dev/shm/qed-UID. A reboot or a power loss still takes what was not flushed. Where
that log is lost, the image is not served unless --pending-lost says otherwise.

An image that is served is locked. A flush on one connection covers the writes of all, whichever
protocol they came by.

--vhost-socket and --mount serve one image over several protocols at once: a virtual machine uses it
while a program reads a copy over NBD or as a file. Two that write have to agree on what. Without
--socket and --listen there is no NBD then. The path of the socket and that of the file are printed
behind the addresses. `qed help vhost` and `qed help mount` say more.

Examples:
  qed serve --socket /run/vm.sock -f qed vm.qed
  qemu-img info 'nbd+unix:///?socket=/run/vm.sock'
  nbdcopy -- [ qed serve -r -f qed vm.qed ] vm.raw
  qed serve --socket /tmp/s --once --exit-with-parent -r -f qed vm.qed &
  qed serve --vhost-socket /run/vm.vhost --socket /run/vm.sock -f qed vm.qed
  qed serve --listen 0.0.0.0:10809 --tls-cert server-cert.pem --tls-key server-key.pem
      --tls-ca ca-cert.pem -f qed a.qed b.qed

Exit codes:
  0  the server was ended, and the images are closed
  1  any error"#;

pub(crate) fn run(args: &ServeArgs, context: &Context) -> anyhow::Result<Exit> {
    args.disks.check()?;
    if args.operands.is_empty() {
        return Err(usage("Expecting at least one image file name"));
    }
    let protocols = Protocols::of(args)?;
    let handed_over = protocols.nbd == Nbd::HandedOver;
    // Early: a program that ends before it is looked for is not easily found.
    let parent = (handed_over || args.exit_with_parent)
        .then(|| Parent::find().context("Could not find the program that started this one"));
    let (limits, tls, vhost) = (limits(args)?, tls(args)?, args.vhost.options()?);
    let drain = args.service.begin(context)?;
    let exports = open_exports(args)?;
    let place = if handed_over { Place::Error } else { Place::Output };
    let events = Events::new(place, args.disks.extend_below()?);
    let mut service = args.service.service(exports.clone(), events, args.unencrypted, context)?;
    let mut addresses = Vec::new();
    if protocols.nbd != Nbd::No {
        let (server, uris) = nbd(args, &exports, limits, tls)?;
        service.add(server);
        // Whoever handed them over knows them, and may read something else there.
        if !handed_over {
            addresses.extend(uris.into_bytes());
        }
    }
    if let (Some(socket), Some(export)) = (&args.vhost_socket, exports.only()) {
        vhost::add_to(&mut service, export, socket, vhost)?;
        addresses.extend([socket.as_os_str().as_bytes(), b"\n"].concat());
    }
    if let (Some(point), Some(export)) = (&args.mount_point, exports.only()) {
        // What the kernel kept of a disk that was handed over would be shown when it comes back.
        let shared = protocols.are_several() || args.service.can_hand_over();
        let direct = args.disks.is_direct()?;
        let how = MountOptions { shared, direct, ..MountOptions::default() };
        let path = args.mount.add_to(&mut service, export, point, how)?;
        addresses.extend([path.as_os_str().as_bytes(), b"\n"].concat());
    }
    match parent.transpose()? {
        Some(Some(parent)) => stop_with(parent, service.stop_handle())?,
        Some(None) if args.exit_with_parent => {
            bail!("The program that started this one cannot be seen from here")
        }
        _ => {}
    }
    context.console.print_now(addresses)?;
    service.run(drain)?;
    Ok(Exit::SUCCESS)
}

/// How NBD is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nbd {
    No,
    Yes,
    /// On the sockets that the program was started with.
    HandedOver,
}

/// Over which protocols the images are served.
#[derive(Debug)]
struct Protocols {
    nbd: Nbd,
    others: usize,
}

impl Protocols {
    /// Those that the options state, once nothing is stated about one that is not served.
    fn of(args: &ServeArgs) -> anyhow::Result<Self> {
        let others = [args.vhost_socket.is_some(), args.mount_point.is_some()];
        let others = others.into_iter().filter(|is_served| *is_served).count();
        let nbd = match (args.socket.is_some() || args.listen.is_some(), others) {
            (true, _) => Nbd::Yes,
            (false, 0) => Nbd::HandedOver,
            (false, _) => Nbd::No,
        };
        if others > 0 && args.operands.len() > 1 {
            return Err(usage("--vhost-socket and --mount are for one image"));
        }
        if args.vhost_socket.is_none() && args.vhost.is_given() {
            return Err(usage("--queues, --queue-size and --serial are for --vhost-socket"));
        }
        if args.mount_point.is_none() && args.mount.is_given() {
            return Err(usage("--allow-other and --growable are for --mount"));
        }
        let of_nbd = args.once
            || args.tls_cert.is_some()
            || args.tls_key.is_some()
            || args.max_connections.is_some()
            || args.threads.is_some();
        if nbd == Nbd::No && of_nbd {
            return Err(usage("--once, --tls-*, --max-connections and --threads are for NBD"));
        }
        Ok(Self { nbd, others })
    }

    fn are_several(&self) -> bool {
        self.others + usize::from(self.nbd != Nbd::No) > 1
    }
}

/// The NBD server of the exports, and the addresses that it listens on.
fn nbd(
    args: &ServeArgs,
    exports: &Exports,
    limits: Limits,
    tls: Option<TlsIdentity>,
) -> anyhow::Result<(Server, String)> {
    let names = exports.iter().map(|export| export.name().to_vec()).collect::<Vec<_>>();
    let may_be_remote = tls.is_some() || args.unencrypted;
    let listeners = listen(args.socket.as_deref(), args.listen.as_deref(), may_be_remote)?;
    let uris = uris(&listeners, &names, tls.is_some());
    Ok((Server::new(exports.clone(), listeners, limits, tls)?, uris))
}

/// Opens all images; those that are open are closed again if one fails.
fn open_exports(args: &ServeArgs) -> anyhow::Result<Exports> {
    let images = &args.operands;
    if !args.name.is_empty() && args.name.len() != images.len() {
        return Err(usage("Expecting --name once for each image, or never"));
    }
    let mut exports = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let name = export_name(image, args.name.get(index), images.len() == 1);
        exports.push(Export::new(
            name.as_bytes(),
            args.disks.open(image, args.service.can_hand_over())?,
        ));
    }
    Ok(Exports::new(exports)?)
}

fn limits(args: &ServeArgs) -> anyhow::Result<Limits> {
    let number = |value: &Option<OsString>, what, most, default| match value {
        Some(value) => number_in(value, what, 1..=most),
        None => Ok(default),
    };
    let defaults = Limits::default();
    let connections = defaults.connections as u64;
    let connections = number(&args.max_connections, "connection count", 65_536, connections)?;
    let threads = defaults.threads_per_connection as u64;
    let threads = number(&args.threads, "thread count", 256, threads)?;
    Ok(Limits {
        connections: usize::try_from(connections)?,
        threads_per_connection: usize::try_from(threads)?,
        once: args.once,
        ..defaults
    })
}

fn tls(args: &ServeArgs) -> anyhow::Result<Option<TlsIdentity>> {
    match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            let files = TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: args.tls_ca.clone(),
            };
            Ok(Some(TlsIdentity::load(&files)?))
        }
        (None, None) if args.tls_ca.is_none() => Ok(None),
        _ => Err(usage("TLS needs both --tls-cert and --tls-key")),
    }
}

/// Ends the server when the process that started it has ended.
fn stop_with(parent: Parent, stop: StopHandle) -> anyhow::Result<()> {
    let wait = move || {
        if let Err(error) = parent.wait() {
            tracing::error!(%error, "waiting for the program that started this one to end");
            return;
        }
        tracing::info!("the program that started this one has ended");
        stop.stop();
    };
    let thread = std::thread::Builder::new().name("parent".to_owned());
    thread.spawn(wait).context("Could not wait for the program that started this one to end")?;
    Ok(())
}
