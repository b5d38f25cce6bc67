//! A copy of the checkout in which something is wrong on purpose, so that it can be seen whether
//! anything notices. The checkout itself is never changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{process, repo};

/// Other text in one place.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    /// From the top of the checkout.
    pub(crate) file: String,
    /// Text of that file, which occurs once.
    pub(crate) search: String,
    /// What stands there instead.
    replace: String,
}

impl Change {
    /// The text of its file with the change in it.
    ///
    /// # Errors
    /// The file is not as the change expects it.
    pub(crate) fn made_in(&self, text: &str) -> Result<String> {
        let count = text.matches(&self.search).count();
        ensure!(count == 1, "{}: {count} times `{}`", self.file, self.search);
        ensure!(self.search != self.replace, "{}: no change", self.file);
        Ok(text.replacen(&self.search, &self.replace, 1))
    }
}

/// Does `work` while the changes are made in `tree`, then takes them back.
///
/// # Errors
/// A change does not fit, or the error of the work.
pub(crate) fn while_changed<T>(
    tree: &Path,
    changes: &[Change],
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let mut sound = Vec::new();
    let mut make = || -> Result<()> {
        for change in changes {
            let path = tree.join(&change.file);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            fs::write(&path, change.made_in(&text)?)?;
            sound.push((path, text));
        }
        Ok(())
    };
    let done = make().and_then(|()| work());
    for (path, text) in sound.into_iter().rev() {
        fs::write(path, text)?;
    }
    done
}

/// Makes `tree` a copy of the files that git knows or would add. Files that are there already and
/// have not changed are left alone, so that little is compiled again.
///
/// # Errors
/// A file could not be read or written.
pub(crate) fn copy_checkout(tree: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = process::output(git.current_dir(repo::root()))?;
    let mut files = BTreeMap::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        // A file that was removed and not committed is listed, too.
        if let Ok(bytes) = fs::read(repo::root().join(path)) {
            files.insert(path, bytes);
        }
    }
    for (path, bytes) in files {
        let copy = tree.join(path);
        if fs::read(&copy).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::create_dir_all(copy.parent().unwrap_or(tree))?;
        fs::write(&copy, bytes).with_context(|| copy.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_made_for_the_work_and_taken_back() {
        let tree = tempfile::tempdir().unwrap();
        let file = tree.path().join("file");
        fs::write(&file, "one two three").unwrap();
        let change = |search: &str, replace: &str| Change {
            file: "file".into(),
            search: search.to_owned(),
            replace: replace.to_owned(),
        };
        let read = || Ok(fs::read_to_string(&file)?);
        let changes = [change("two", "2"), change("2 three", "3")];
        assert_eq!(while_changed(tree.path(), &changes, read).unwrap(), "one 3");
        assert_eq!(read().unwrap(), "one two three");
        for bad in [change("four", ""), change("e", "x"), change("two", "two")] {
            let changes = [change("one", "1"), bad];
            assert!(while_changed(tree.path(), &changes, read).is_err());
            assert_eq!(read().unwrap(), "one two three");
        }
    }
}
