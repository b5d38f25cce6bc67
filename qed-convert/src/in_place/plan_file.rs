//! The file that keeps the plan of a conversion until the conversion is over, so that a call after a
//! crash knows how far the one before came.
//!
//! Owns where the plan lies and whose plan is believed; knows no byte of a plan.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use qed_io::effective_user;

/// No plan is longer: a checksum for each sector of the tables of the longest files.
const MAX_LEN: u64 = 1 << 30;
/// Permission bits with which others could have written the plan.
const OTHERS_WRITE: u32 = 0o022;

/// Keeps the plan of a conversion while it is under way.
pub trait PlanStore {
    /// The plan that is kept, if there is one.
    ///
    /// # Errors
    /// It could not be read, or is not to be believed.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Keeps a plan in place of any other: whole and durable when it returns.
    ///
    /// # Errors
    /// It could not be kept.
    fn save(&self, plan: &[u8]) -> io::Result<()>;

    /// Drops the plan durably.
    ///
    /// # Errors
    /// It could not be dropped.
    fn remove(&self) -> io::Result<()>;

    /// The plan in the words of an error message.
    fn shown(&self) -> String {
        "the plan".to_owned()
    }
}

/// A plan in memory, for a file in memory: it does not outlive the program.
impl PlanStore for RefCell<Option<Vec<u8>>> {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.borrow().clone())
    }

    fn save(&self, plan: &[u8]) -> io::Result<()> {
        self.replace(Some(plan.to_vec()));
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        self.replace(None);
        Ok(())
    }
}

/// The plan of the file `FILE`, kept as `FILE.qed-convert` in the folder where the file really lies.
#[derive(Debug, Clone)]
pub struct PlanFile {
    path: PathBuf,
    /// The converted file, all links resolved.
    file: PathBuf,
    /// Where a plan would lie beside a link by which the file was named.
    beside_link: Option<PathBuf>,
}

impl PlanFile {
    /// The plan of the file at `path`: one and the same by all symbolic links.
    #[must_use]
    pub fn beside(path: &Path) -> Self {
        // What cannot be resolved cannot be opened either, and nothing is converted.
        let file = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        let beside_link = is_link.then(|| with_suffix(path, ".qed-convert"));
        Self { path: with_suffix(&file, ".qed-convert"), file, beside_link }
    }

    /// Where the plan is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn flush_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Whether the writer of `found` could as well have written the file itself.
    fn believe(&self, found: &Metadata) -> io::Result<()> {
        let refuse = |why: &str| {
            let text = format!(
                "{} {why} and is not believed: look at it, and remove it if it is not yours",
                self.shown()
            );
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        };
        if !found.is_file() {
            return refuse("is no regular file");
        }
        let owners = [0, effective_user(), fs::metadata(&self.file)?.uid()];
        if !owners.contains(&found.uid()) {
            return refuse(&format!("belongs to another user ({})", found.uid()));
        }
        if found.mode() & OTHERS_WRITE != 0 {
            return refuse("can be written by other users");
        }
        match found.len() {
            0..=MAX_LEN => Ok(()),
            _ => refuse("is too long for a plan"),
        }
    }

    /// Earlier versions kept the plan beside the link.
    fn refuse_beside_link(&self) -> io::Result<()> {
        match &self.beside_link {
            Some(path) if *path != self.path && fs::symlink_metadata(path).is_ok() => {
                Err(io::Error::other(format!(
                    "a plan lies beside the link: if '{}' is of this file, move it to '{}', else \
                     remove it",
                    path.display(),
                    self.path.display()
                )))
            }
            _ => Ok(()),
        }
    }
}

impl PlanStore for PlanFile {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.refuse_beside_link()?;
        // Looked at before it is opened: opening a pipe would wait.
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => self.believe(&found?)?,
        }
        let file = File::open(&self.path)?;
        self.believe(&file.metadata()?)?;
        let mut plan = Vec::new();
        file.take(MAX_LEN).read_to_end(&mut plan)?;
        Ok(Some(plan))
    }

    fn save(&self, plan: &[u8]) -> io::Result<()> {
        let unfinished = with_suffix(&self.path, ".new");
        // What a crash left there goes; a link that somebody put there is not followed.
        remove_if_there(&unfinished)?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let kept = file
            .write_all(plan)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&unfinished, &self.path));
        if let Err(error) = kept {
            // The error that is returned says more than a file that stays.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        self.flush_folder()
    }

    fn remove(&self) -> io::Result<()> {
        remove_if_there(&self.path)?;
        self.flush_folder()
    }

    fn shown(&self) -> String {
        format!("the plan '{}'", self.path.display())
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refusal(plan: &PlanFile) -> String {
        plan.load().expect_err("not believed").to_string()
    }

    #[test]
    fn a_file_has_one_plan_by_all_its_links() {
        let folder = tempfile::tempdir().expect("room in /tmp");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("far")).expect("a folder");
        fs::write(at("far/disk"), "").expect("a file");
        symlink("far/disk", at("link")).expect("a link");
        symlink("link", at("second")).expect("a link");
        PlanFile::beside(&at("second")).save(b"plan").expect("room in /tmp");
        for name in ["link", "second", "far/disk", "far/../link"] {
            let plan = PlanFile::beside(&at(name));
            assert_eq!(plan.load().expect(name), Some(b"plan".to_vec()), "{name}");
        }
        assert!(at("far/disk.qed-convert").exists() && !at("far/disk.qed-convert.new").exists());
        // One that an earlier version left beside the link is not passed over.
        fs::write(at("link.qed-convert"), "old").expect("a file");
        assert!(refusal(&PlanFile::beside(&at("link"))).contains("move it to"));
        assert!(PlanFile::beside(&at("far/disk")).load().is_ok());
    }

    #[test]
    fn a_plan_that_others_could_have_written_is_not_believed() {
        let folder = tempfile::tempdir().expect("room in /tmp");
        let disk = folder.path().join("disk");
        fs::write(&disk, "").expect("a file");
        let plan = PlanFile::beside(&disk);
        plan.save(b"plan").expect("room in /tmp");
        for mode in [0o620, 0o602, 0o666] {
            fs::set_permissions(plan.path(), fs::Permissions::from_mode(mode)).expect("ours");
            assert!(refusal(&plan).contains("written by other users"), "{mode:o}");
        }
        fs::rename(plan.path(), folder.path().join("elsewhere")).expect("ours");
        symlink("elsewhere", plan.path()).expect("a link");
        assert!(refusal(&plan).contains("no regular file"));
        plan.remove().expect("ours");
        fs::create_dir(plan.path()).expect("a folder");
        assert!(refusal(&plan).contains("no regular file"));
    }

    #[test]
    fn a_link_where_the_plan_is_written_is_not_followed() {
        let folder = tempfile::tempdir().expect("room in /tmp");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("disk"), "").expect("a file");
        fs::write(at("victim"), "precious").expect("a file");
        symlink("victim", at("disk.qed-convert.new")).expect("a link");
        PlanFile::beside(&at("disk")).save(b"plan").expect("room in /tmp");
        assert_eq!(fs::read(at("victim")).expect("a file"), b"precious");
    }
}
