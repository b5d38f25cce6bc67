//! `bench`: how fast requests to an image are served.

mod device;
mod order;
mod requests;

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use qed::Keeps;

use crate::app::Context;
use crate::args::{CacheMode, Format, discard_mode, number_in, refuse_qcow2};
use crate::chain::ChainArgs;
use crate::failure::{Exit, shown};
use crate::image_name::ImageArgs;
use crate::open::{OpenHow, WriteHow, could_not_open, open_image};
use device::{Device, Target};
use order::Order;
use requests::{Action, How, Plan};

/// Send read, write or discard requests to an image and time them.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    chain: ChainArgs,
    /// Number of requests
    #[arg(short, long, value_name = "COUNT")]
    count: Option<OsString>,
    /// Requests in flight
    #[arg(short, long, value_name = "DEPTH")]
    depth: Option<OsString>,
    /// Byte of the virtual disk where the first request starts
    #[arg(short, long, value_name = "OFFSET")]
    offset: Option<OsString>,
    /// Bytes of each request
    #[arg(short = 's', long, value_name = "SIZE")]
    buffer_size: Option<OsString>,
    /// Bytes from the start of one request to that of the next
    #[arg(short = 'S', long, value_name = "SIZE")]
    step_size: Option<OsString>,
    /// Send the requests in random order, which is the same each time
    #[arg(long)]
    random: bool,
    /// Write instead of read
    #[arg(short, long)]
    write: bool,
    /// Discard instead of read. What becomes of the space of a QED image is reuse (the default), pass-down
    /// or ignore; a raw file gets holes unless they are ignored
    #[arg(
        long,
        value_name = "MODE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "reuse",
        conflicts_with = "write"
    )]
    discard: Option<OsString>,
    /// Byte to write, 0 to 255
    #[arg(long, value_name = "BYTE")]
    pattern: Option<OsString>,
    /// Flush after this many writes or discards
    #[arg(long, value_name = "COUNT")]
    flush_interval: Option<OsString>,
    /// Do not wait for the requests in flight before a flush
    #[arg(long)]
    no_drain: bool,
    /// Cache mode
    #[arg(short = 't', long, value_name = "CACHE")]
    cache: Option<OsString>,
    /// Way of doing I/O: threads, each with one request, or io_uring, all by one thread
    #[arg(short = 'i', long, value_name = "AIO")]
    aio: Option<OsString>,
    /// Native asynchronous I/O: not supported yet
    #[arg(short, long)]
    native: bool,
    /// Take no lock: the image may be in use
    #[arg(short = 'U', long)]
    force_share: bool,
    /// Accepted for scripts
    #[arg(short, long, hide = true)]
    quiet: bool,
}

const NOTES: &str = "\
Examples:
  qed bench -f qed -c 100000 -d 8 disk.qed
  qed bench -f qed -w -s 64k -S 64k --flush-interval 64 disk.qed
  qed bench -f qed --discard -s 1M -S 1M -c 1000 disk.qed
  qed bench -f qed -w -S 64k --random -t none -i io_uring -d 32 disk.qed

Exit codes:
  0  all requests were served
  1  any error";

pub(crate) fn run(args: BenchArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    let plan = plan(&args)?;
    let Some(cache) = CacheMode::by_name(args.cache.as_deref()) else {
        bail!("Invalid cache mode");
    };
    let name = args.image.given()?;
    if plan.flush_interval.is_some() && plan.action == Action::Read {
        bail!("--flush-interval is only available in write tests");
    }
    if plan.flush_interval.is_some_and(|interval| interval < plan.depth) {
        bail!("Flush interval can't be smaller than depth");
    }
    let device = open(&args, name, cache)?;
    context.console.print_now(plan.announcement())?;
    let time = plan.run(&device, context).context("Failed request")?;
    device.close()?;
    context.console.print(format!("Run completed in {:.3} seconds.\n", time.as_secs_f64()))?;
    Ok(Exit::SUCCESS)
}

impl BenchArgs {
    fn action(&self) -> Action {
        match self.discard {
            Some(_) => Action::Discard,
            None if self.write => Action::Write,
            None => Action::Read,
        }
    }
}

fn plan(args: &BenchArgs) -> anyhow::Result<Plan> {
    let most = i32::MAX.unsigned_abs().into();
    let number = |value: &Option<OsString>, what, least, default| match value {
        Some(value) => number_in(value, what, least..=most),
        None => Ok(default),
    };
    let count = number(&args.count, "request count", 1, 75000)?;
    let depth = number(&args.depth, "queue depth", 1, 64)?;
    let offset = match &args.offset {
        Some(offset) => number_in(offset, "offset", 0..=i64::MAX.unsigned_abs())?,
        None => 0,
    };
    let len = number(&args.buffer_size, "buffer size", 1, 4096)?;
    let step = number(&args.step_size, "step size", 1, len)?;
    let pattern = match &args.pattern {
        Some(pattern) => number_in(pattern, "pattern byte", 0..=255)?,
        None => 0,
    };
    let flush_interval = match &args.flush_interval {
        Some(_) => Some(number(&args.flush_interval, "flush interval", 0, 0)?),
        None => None,
    };
    Ok(Plan {
        count,
        depth,
        offset,
        len,
        step,
        order: if args.random { Order::Random { count } } else { Order::Ascending },
        engine: how(args)?,
        action: args.action(),
        pattern: u8::try_from(pattern)?,
        flush_interval: flush_interval.filter(|interval| *interval > 0),
        drain: !args.no_drain,
    })
}

fn how(args: &BenchArgs) -> anyhow::Result<How> {
    match args.aio.as_deref().map(OsStr::as_encoded_bytes) {
        None | Some(b"threads") if !args.native => Ok(How::Threads),
        None | Some(b"threads" | b"native") => Err(crate::failure::unsupported("aio=native")),
        Some(b"io_uring") if args.discard.is_some() => {
            Err(crate::failure::unsupported("aio=io_uring with --discard"))
        }
        Some(b"io_uring") => Ok(How::Ring),
        Some(_) => {
            bail!("Invalid aio option: {}", shown(args.aio.as_deref().unwrap_or_default()))
        }
    }
}

fn open(args: &BenchArgs, name: &OsStr, cache: CacheMode) -> anyhow::Result<Device> {
    let named = args.image.named()?;
    let action = args.action();
    if action == Action::Read {
        let how = OpenHow { cache, ..OpenHow::read(args.force_share) };
        let opened = args.chain.open(&named, how)?;
        let file = opened.layers.first().map(|top| Arc::clone(top.storage()));
        let file = file.with_context(|| could_not_open(name))?;
        return Ok(Device { target: Target::Disk(opened.disk), file, action });
    }
    if args.force_share {
        let why = "force-share=on can only be used with read-only images";
        bail!("{}: {why}", could_not_open(name));
    }
    let image = open_image(&named, OpenHow { cache, ..OpenHow::WRITE })?;
    refuse_qcow2(image.format(), "writing to")?;
    let discard = discard_mode(args.discard.as_deref())?;
    let target = match image.format() {
        Format::Qed => {
            let how = WriteHow { discard, keeps: Keeps::Nothing, ..WriteHow::default() };
            let writable = args.chain.writable_as(&image, OpenHow::read(false), how);
            Target::Qed(Arc::new(writable.with_context(|| could_not_open(name))?))
        }
        Format::Raw | Format::Qcow2 => Target::Raw(discard),
    };
    Ok(Device { target, file: Arc::clone(image.storage()), action })
}
