//! The inputs of the cases: their names, and how each is made when it is not there yet.

mod sparse_disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, repo};

/// An input file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    None,
    /// 4 GiB with 1.6 GiB of data in runs of 64 KiB to 1 MiB, the rest holes.
    Raw,
    /// The same disk in QCOW2, as `qemu-img convert` writes it.
    Qcow2,
    Qcow2Zlib,
    Qcow2Zstd,
    /// 64 GiB in QCOW2, all 2^20 clusters of 64 KiB mapped; they are holes of the file.
    Qcow2Mapped,
    /// A QED image with 10^7 allocated clusters of 64 KiB, in the guest's order.
    FullSequential,
    /// The same, in random order.
    FullScattered,
    /// 1 GiB of noise.
    FullRaw,
    /// The same in QED, as `qed convert` writes it.
    FullQed,
    /// A QED image with so many allocated clusters and some that are not: eight tables of them, or
    /// one in each table.
    Open {
        layout: Layout,
        clusters: u64,
        spare_each: bool,
    },
}

/// What the header area of a made image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Classic,
    Compat,
    Journal,
}

impl Input {
    /// The file in the folder of inputs.
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(match self {
            Self::Open { layout, clusters, spare_each } => {
                let each = if spare_each { "-each" } else { "" };
                return dir.join(format!("open-{}-{clusters}{each}.qed", layout.name()));
            }
            Self::None => "none",
            Self::Raw => "disk.raw",
            Self::Qcow2 => "disk.qcow2",
            Self::Qcow2Zlib => "disk-zlib.qcow2",
            Self::Qcow2Zstd => "disk-zstd.qcow2",
            Self::Qcow2Mapped => "mapped-64g.qcow2",
            Self::FullRaw => "full.raw",
            Self::FullQed => "full.qed",
            Self::FullSequential => "full-1e7.qed",
            Self::FullScattered => "full-1e7-scattered.qed",
        })
    }

    /// Makes the file unless it is there.
    ///
    /// # Errors
    /// It could not be written, or qemu-img failed.
    pub(super) fn make(self, dir: &Path) -> Result<()> {
        let path = self.path(dir);
        if self == Self::None || path.exists() {
            return Ok(());
        }
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        eprintln!("making {}", path.display());
        let unfinished = path.with_extension("unfinished");
        match self {
            Self::None => {}
            Self::Raw => sparse_disk::write(&unfinished)?,
            Self::Qcow2 => convert_raw(dir, &unfinished, &[])?,
            Self::Qcow2Zlib => convert_raw(dir, &unfinished, &["-c"])?,
            Self::Qcow2Zstd => {
                convert_raw(dir, &unfinished, &["-c", "-o", "compression_type=zstd"])?;
            }
            Self::Qcow2Mapped => {
                let mut create = Command::new("qemu-img");
                create.args(["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata"]);
                process::run(create.arg(&unfinished).arg("64G"))?;
            }
            Self::FullRaw => noise(&unfinished)?,
            Self::FullQed => {
                Self::FullRaw.make(dir)?;
                let mut convert = Command::new(repo::build_qed()?);
                convert.args(["convert", "-f", "raw", "-O", "qed"]);
                process::run(convert.arg(Self::FullRaw.path(dir)).arg(&unfinished))?;
            }
            Self::FullSequential => fabricate(&unfinished, 10_000_000, &["--order", "sequential"])?,
            Self::FullScattered => fabricate(&unfinished, 10_000_000, &["--order", "scattered"])?,
            Self::Open { layout, clusters, spare_each } => {
                let spare: &[&str] =
                    if spare_each { &["--spare-each"] } else { &["--spare-tables", "8"] };
                fabricate(&unfinished, clusters, &[&["--layout", layout.name()], spare].concat())?;
            }
        }
        fs::rename(&unfinished, &path).with_context(|| path.display().to_string())
    }
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Compat => "compat",
            Self::Journal => "journal",
        }
    }
}

/// The generator of the fuzz crate, which uses no allocator under test. Data clusters are holes.
fn fabricate(output: &Path, clusters: u64, options: &[&str]) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["run", "--quiet", "--release", "--locked", "--package", "qed-fuzz"]);
    cargo.args(["--bin", "fabricate", "--"]).arg(output);
    cargo.args(["--clusters", &clusters.to_string()]).args(options);
    process::run(cargo.current_dir(repo::root()))
}

fn noise(output: &Path) -> Result<()> {
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/urandom", "bs=1M", "count=1024", "status=none"]);
    process::run(dd.arg(format!("of={}", output.display())))
}

fn convert_raw(dir: &Path, output: &Path, options: &[&str]) -> Result<()> {
    Input::Raw.make(dir)?;
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-f", "raw", "-O", "qcow2"]).args(options);
    process::run(command.arg(Input::Raw.path(dir)).arg(output))
}
