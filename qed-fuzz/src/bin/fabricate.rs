//! `fabricate FILE --clusters N [--cluster-size B] [--table-size T] [--order sequential|scattered]
//! [--seed S] [--layout classic|compat|journal] [--spare-tables N|--spare-each]`: makes an image with real metadata and sparse data, for benchmarks.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use qed_core::{DEFAULT_RING_LEN_BYTES, Identity, Layout};
use qed_fuzz::{Fabrication, Order, Spare, fabricate};
use qed_io::{Existing, FileStorage, ImageLock, NewFileOptions};
use qed_spec::{Epoch, Geometry, ImageUuid};

const USAGE: &str = "usage: fabricate FILE --clusters N [--cluster-size BYTES] \
    [--table-size CLUSTERS] [--order sequential|scattered] [--seed N] \
    [--layout classic|compat|journal] [--spare-tables N | --spare-each]";

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fabricate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    let (path, what) = parse(args)?;
    let options =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    let storage = FileStorage::create(path, options)?;
    fabricate(&storage, &what)?;
    Ok(())
}

fn parse(
    mut args: impl Iterator<Item = OsString>,
) -> Result<(OsString, Fabrication), Box<dyn Error>> {
    let (mut path, mut clusters, mut cluster_size, mut table_size) = (None, None, 65536, 4);
    let (mut is_scattered, mut seed) = (false, 1);
    let (mut layout, mut spare) = (Layout::Classic, Spare::None);
    while let Some(arg) = args.next() {
        let mut value = || args.next().and_then(|value| value.into_string().ok()).ok_or(USAGE);
        match arg.to_str() {
            Some("--clusters") => clusters = Some(value()?.parse()?),
            Some("--cluster-size") => cluster_size = value()?.parse()?,
            Some("--table-size") => table_size = value()?.parse()?,
            Some("--seed") => seed = value()?.parse()?,
            Some("--order") => {
                is_scattered = match value()?.as_str() {
                    "sequential" => false,
                    "scattered" => true,
                    other => return Err(format!("unknown order {other:?}; {USAGE}").into()),
                }
            }
            Some("--layout") => layout = parse_layout(&value()?)?,
            Some("--spare-tables") => spare = Spare::Tables(value()?.parse()?),
            Some("--spare-each") => spare = Spare::OneInEach,
            Some(option) if option.starts_with("--") => return Err(USAGE.into()),
            _ if path.is_none() => path = Some(arg),
            _ => return Err(USAGE.into()),
        }
    }
    let geometry = Geometry::new(cluster_size, table_size).ok_or_else(|| {
        format!("no image has clusters of {cluster_size} and tables of {table_size} clusters")
    })?;
    let order = if is_scattered { Order::Scattered { seed } } else { Order::Sequential };
    let clusters = clusters.ok_or(USAGE)?;
    Ok((path.ok_or(USAGE)?, Fabrication { clusters, geometry, order, spare, layout }))
}

fn parse_layout(name: &str) -> Result<Layout, String> {
    // The same bytes each time.
    let identity = Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) };
    match name {
        "classic" => Ok(Layout::Classic),
        "compat" => Ok(Layout::Compat(identity)),
        "journal" => Ok(Layout::Journal { identity, ring_len_bytes: DEFAULT_RING_LEN_BYTES }),
        other => Err(format!("unknown layout {other:?}; {USAGE}")),
    }
}
