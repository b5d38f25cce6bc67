//! Proves that `./demo` and `./test` need nothing but what the README says: a new Debian root made
//! by debootstrap, with git, the toolchain and a clone, and nothing else. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{process, repo};

/// The releases that the README names.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];
const MIRROR: &str = "http://deb.debian.org/debian";
/// Where a root's user has the clone and the toolchain.
const CLONE: &str = "srv/qed";
const TOOLCHAIN: &str = "opt/toolchain";

/// Runs both scripts in a new root of each release named, bookworm without a word.
///
/// # Errors
/// It is not run as root, a release is not known, or a script fails.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let uid = process::output(Command::new("id").arg("-u"))?;
    ensure!(uid.trim() == "0", "fresh needs root: it makes a Debian root and enters it");
    let releases = if words.is_empty() { vec![RELEASES[0].to_owned()] } else { words.to_vec() };
    for release in &releases {
        if !RELEASES.contains(&release.as_str()) {
            bail!("there is no release {release}: {}", RELEASES.join(" or "));
        }
        prove(release).with_context(|| format!("in a new root of {release}"))?;
    }
    Ok(())
}

fn prove(release: &str) -> Result<()> {
    let root = Root::make(release)?;
    for script in ["./demo", "./test"] {
        println!("== {release}: {script}");
        root.run(script)?;
    }
    println!("== {release}: ./demo and ./test pass in a new root");
    Ok(())
}

/// A Debian root, taken apart when dropped.
struct Root {
    path: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Root {
    fn make(release: &str) -> Result<Self> {
        let path = repo::target_dir()?.join("fresh").join(release);
        ensure!(!path.exists(), "{} is left of another run: remove it", path.display());
        fs::create_dir_all(&path)?;
        let mut root = Self { path, mounted: Vec::new() };
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", "--include=ca-certificates,git", release]);
        process::run(debootstrap.arg(&root.path).arg(MIRROR))?;
        root.copy_network_settings()?;
        root.mount("proc", Path::new("proc"), &["-t", "proc"])?;
        root.mount("/dev", Path::new("dev"), &["--rbind"])?;
        root.bind_toolchain()?;
        root.clone_checkout()?;
        Ok(root)
    }

    /// The resolver, and the certificates of a proxy if this machine sits behind one.
    fn copy_network_settings(&self) -> Result<()> {
        fs::copy("/etc/resolv.conf", self.path.join("etc/resolv.conf"))?;
        let local = Path::new("usr/local/share/ca-certificates");
        let Ok(entries) = fs::read_dir(Path::new("/").join(local)) else { return Ok(()) };
        for entry in entries {
            let entry = entry?;
            fs::copy(entry.path(), self.path.join(local).join(entry.file_name()))?;
        }
        process::run(Command::new("chroot").arg(&self.path).arg("update-ca-certificates"))
    }

    /// The toolchain that runs this task, read-only, as rustup would have installed it.
    fn bind_toolchain(&mut self) -> Result<()> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let sysroot = process::output(Command::new(rustc).args(["--print", "sysroot"]))?;
        self.mount(sysroot.trim(), Path::new(TOOLCHAIN), &["--bind", "-o", "ro"])
    }

    fn clone_checkout(&self) -> Result<()> {
        let mut git = Command::new("git");
        git.args(["clone", "--quiet", "--no-local"]).arg(repo::root());
        process::run(git.arg(self.path.join(CLONE)))
    }

    fn mount(&mut self, what: &str, at: &Path, options: &[&str]) -> Result<()> {
        let at = self.path.join(at);
        fs::create_dir_all(&at)?;
        process::run(Command::new("mount").args(options).arg(what).arg(&at))?;
        self.mounted.push(at.clone());
        // An unmount in here must not reach the machine's own mounts.
        process::run(Command::new("mount").arg("--make-rprivate").arg(&at))
    }

    /// Runs a script of the clone with an environment that has nothing of ours.
    fn run(&self, script: &str) -> Result<()> {
        let mut chroot = Command::new("chroot");
        chroot.arg(&self.path).args(["env", "-i", "CI=true", "HOME=/root"]);
        chroot.arg(format!("PATH=/{TOOLCHAIN}/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
        chroot.args(["sh", "-c", &format!("cd /{CLONE} && exec {script}")]);
        process::run(&mut chroot)
    }
}

impl Drop for Root {
    /// Removes the root, but never with something of the machine still mounted in it.
    fn drop(&mut self) {
        for at in self.mounted.iter().rev() {
            if let Err(error) = process::run(Command::new("umount").arg("--recursive").arg(at)) {
                eprintln!("left behind: {}: {error:#}", self.path.display());
                return;
            }
        }
        let mut rm = Command::new("rm");
        if let Err(error) = process::run(rm.args(["-rf", "--one-file-system"]).arg(&self.path)) {
            eprintln!("left behind: {error:#}");
        }
    }
}
