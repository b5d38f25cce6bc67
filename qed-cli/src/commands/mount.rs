//! `mount`: an image as a file, by FUSE.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use qed_export::fuse::{Mount, MountOptions};
use qed_export::server::{Export, Exports, Service};

use crate::app::Context;
use crate::args::number_in;
use crate::background;
use crate::failure::{Exit, usage};
use crate::service::{DiskArgs, Events, Place, ServiceArgs};

/// Show the disk of an image as a file that every program can open.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct MountArgs {
    #[command(flatten)]
    mount: MountOptionArgs,
    /// Return when the disk can be used, and serve it in the background
    #[arg(long)]
    background: bool,
    #[arg(long, hide = true)]
    in_background: bool,
    #[command(flatten)]
    disk: DiskArgs,
    /// Requests that are served at a time
    #[arg(long, value_name = "COUNT")]
    threads: Option<OsString>,
    #[command(flatten)]
    service: ServiceArgs,
    /// The image, and the regular file or folder that shows its disk
    #[arg(value_names = ["FILENAME", "MOUNTPOINT"], num_args = 0..)]
    operands: Vec<OsString>,
}

/// What is said about the file that shows the disk.
#[derive(Debug, Args)]
pub(crate) struct MountOptionArgs {
    /// Let other users use the file, as far as its permissions say
    #[arg(long)]
    allow_other: bool,
    /// Let the disk become longer: by truncate, fallocate and writes past its end
    #[arg(long)]
    growable: bool,
}

const NOTES: &str = r#"Over a regular file the disk appears in its place; in a folder it is the file 'disk'. When it can be
used its path is printed.

The server ends when the disk is unmounted, by umount or fusermount3 -u, and on SIGTERM or SIGINT,
which unmount it. Then the image is flushed and closed. A file that is in use is only taken out of
sight: whoever has it open may go on for as long as --drain says (30 seconds). A second signal, a
second later or more, ends the server at once.

umount returns before the image is closed: wait for the server to end before it is used elsewhere.
With --background nothing is logged once the disk is mounted, and the server is found by its image:
fuser vm.qed.

What a program wrote is in the image when its write returns, and durable after fsync. Holes that are
punched, at any alignment, read as zeros, and whole clusters give up their space as --discard says.
fallocate allocates. The size of the file stays unless --growable is given; a write that begins at
the end or past it finds no space, as on a block device. SEEK_DATA and SEEK_HOLE find what qed map
shows.

With -t none the kernel keeps no pages of the file either. Nor does it with --control, by which the
image can be handed to another server; fallocate then allocates nothing.

The file belongs to who mounted it, and only that user may use it. --allow-other leaves that to its
permissions, which chmod and chown change until it is unmounted; a user who is not root needs
user_allow_other in /etc/fuse.conf, and fusermount3.

A server that was killed leaves a mount behind that answers 'Transport endpoint is not connected'.
umount -l or fusermount3 -uz takes it away.

Examples:
  qed mount --background vm.qed /mnt/vm
  losetup --find --show --partscan /mnt/vm/disk
  touch vm.raw; qed mount --background -r vm.qed vm.raw; sha256sum vm.raw; umount vm.raw

Exit codes:
  0  the disk was unmounted and the image is closed; with --background: the disk is mounted
  1  any error"#;

impl MountOptionArgs {
    /// Whether any was stated.
    pub(crate) fn is_given(&self) -> bool {
        self.allow_other || self.growable
    }

    /// Mounts `export`, adds its server to a service, and says where the file is; `how` is what else is
    /// known of it.
    pub(crate) fn add_to(
        &self,
        service: &mut Service,
        export: &Arc<Export>,
        mount_point: &Path,
        how: MountOptions,
    ) -> anyhow::Result<PathBuf> {
        let how = MountOptions { allow_other: self.allow_other, growable: self.growable, ..how };
        let mount = Mount::new(export, mount_point, how)?;
        let path = mount.path().to_owned();
        service.add(mount);
        Ok(path)
    }
}

pub(crate) fn run(args: MountArgs, context: &Context) -> anyhow::Result<Exit> {
    args.disk.check()?;
    let [image, mount_point] = &args.operands[..] else {
        return Err(usage("Expecting an image file name and a mount point"));
    };
    // What the kernel kept of a disk that was handed over would be shown when it comes back.
    let (shared, direct) = (args.service.can_hand_over(), args.disk.is_direct()?);
    let mut how = MountOptions { shared, direct, ..MountOptions::default() };
    if let Some(threads) = &args.threads {
        how.threads = usize::try_from(number_in(threads, "thread count", 1..=256)?)?;
    }
    if args.background && !args.in_background {
        return background::start(context);
    }
    if args.in_background {
        background::leave_session()?;
    }
    let drain = args.service.begin(context)?;
    let exports =
        Exports::new(vec![Export::new("", args.disk.open(image, args.service.can_hand_over())?)])?;
    let events = Events::new(Place::Output, args.disk.extend_below()?);
    let mut service = args.service.service(exports.clone(), events, false, context)?;
    for export in exports.iter() {
        let path = args.mount.add_to(&mut service, export, Path::new(mount_point), how)?;
        context.console.print_now([path.as_os_str().as_bytes(), b"\n"].concat())?;
    }
    if args.in_background {
        background::let_go()?;
    }
    service.run(drain)?;
    Ok(Exit::SUCCESS)
}
