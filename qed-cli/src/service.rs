//! What all commands that serve images share: opening them, signals, the log, events, metrics and the
//! control socket. Knows no protocol.

mod events;
mod images;
mod low_space;
mod reach;
mod served_image;
mod signals;

use std::ffi::OsString;
use std::io::stderr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use qed_export::server::{Exports, Listener, Service};
use tracing::level_filters::LevelFilter;

use crate::app::Context;
use crate::args::number_in;
pub(crate) use events::{Events, Place};
pub(crate) use images::{DiskArgs, export_name};
pub(crate) use reach::check_reach;
use reach::listen_at;
use signals::{compact_at_signal, stop_at_signal};

/// What `--drain` is without being stated.
const DRAIN_SECS: u64 = 30;

/// What is said about a service, whatever its protocols are.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Seconds that requests may go on when the server ends
    #[arg(long, value_name = "SECS")]
    drain: Option<OsString>,
    /// Answer HTTP with counters (OpenMetrics) on this Unix socket or HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<OsString>,
    /// Answer requests about the service on this Unix socket, which only this user may connect to
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// What to log to standard error: off, error, warn (the default), info or debug
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

impl ServiceArgs {
    /// Begins to log; from here on signals wait for the images to be closed. How long requests may go on
    /// when the service ends.
    pub(crate) fn begin(&self, context: &Context) -> anyhow::Result<Duration> {
        start_log(self.log.as_deref())?;
        let drain = self.drain.as_deref();
        let secs =
            drain.map_or(Ok(DRAIN_SECS), |secs| number_in(secs, "drain time", 0..=86_400))?;
        context.interrupts.defer();
        Ok(Duration::from_secs(secs))
    }

    /// Whether somebody can ask for an image to be handed over.
    pub(crate) fn can_hand_over(&self) -> bool {
        self.control.is_some()
    }

    /// The service of these exports, without a server of a disk yet: it hears signals, and tells what
    /// happens to the images. `may_be_remote` is whether other machines may read the metrics.
    pub(crate) fn service(
        &self,
        exports: Exports,
        mut events: Events,
        may_be_remote: bool,
        context: &Context,
    ) -> anyhow::Result<Service> {
        let service = Service::new(exports);
        let mut service = service.watched_by(move |export, event| events.hear(export, &event));
        if let Some(address) = &self.metrics {
            service.add_metrics(listen_at(address, may_be_remote)?)?;
        }
        if let Some(path) = &self.control {
            service.add_control(Listener::unix(path)?)?;
        }
        compact_at_signal(context, service.compact_handle())?;
        stop_at_signal(context, service.stop_handle())?;
        Ok(service)
    }
}

fn start_log(level: Option<&str>) -> anyhow::Result<()> {
    let level = match level {
        None | Some("warn") => LevelFilter::WARN,
        Some("off") => LevelFilter::OFF,
        Some("error") => LevelFilter::ERROR,
        Some("info") => LevelFilter::INFO,
        Some("debug") => LevelFilter::DEBUG,
        Some(level) => bail!("Invalid log level '{level}'"),
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(stderr);
    log.with_ansi(false).with_target(false).init();
    Ok(())
}
