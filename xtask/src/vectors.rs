//! The vectors of the extensions that are computed: whole families in which one number takes every
//! value that matters. Owns which families there are and where they lie.
//!
//! Their arithmetic is that of `vectors/` alone. It shares nothing with the crates that are held
//! against the vectors, and takes the plainest way it can.

mod bits;
mod crc;
mod journal;
mod superblock;
mod text;
mod vector;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::problem::Problem;
use crate::repo;
use crate::tree::Tree;
use vector::Family;

/// Where the families lie, one file each.
const FOLDER: &str = "conformance/vectors/made";

/// The makers of the families.
const MAKERS: [fn() -> Vec<Family>; 3] = [bits::families, superblock::families, journal::families];

/// Writes the families; with `--check`, fails instead if they had to be written.
pub(crate) fn run(words: &[String]) -> Result<()> {
    match words {
        [] => write(),
        [word] if word == "--check" => {
            let problems = problems(&Tree::read()?);
            problems.iter().for_each(|problem| println!("{problem}"));
            if problems.is_empty() { Ok(()) } else { bail!("the vectors are stale") }
        }
        _ => bail!("cargo xtask vectors [--check]"),
    }
}

/// Families that are not as they would be written, and files that nobody writes.
pub(crate) fn problems(tree: &Tree) -> Vec<Problem> {
    let files = files();
    let stale =
        files.iter().filter(|(path, text)| !tree.file(path).is_ok_and(|file| file.text == **text));
    let found = tree.files().map(|file| &file.path).filter(|path| path.starts_with(FOLDER));
    let foreign = found.filter(|path| !files.contains_key(*path));
    let stale = stale.map(|(path, _)| Problem::new(path, 1, "stale: cargo xtask vectors"));
    let foreign = foreign
        .map(|path| Problem::new(path, 1, "not made by cargo xtask vectors; it goes in hand/"));
    stale.chain(foreign).collect()
}

fn write() -> Result<()> {
    let files = files();
    for (path, text) in &files {
        let path = repo::root().join(path);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    let vectors: usize = files.values().map(|text| text.matches("[[vector]]\n").count()).sum();
    println!("{FOLDER}: {vectors} vectors in {} files", files.len());
    Ok(())
}

/// The files of all families by their paths.
fn files() -> BTreeMap<String, String> {
    let families = MAKERS.iter().flat_map(|make| make());
    families.map(|family| (format!("{FOLDER}/{}.toml", family.name), family.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_vectors_and_no_two_families_have_one_name() {
        let families: Vec<Family> = MAKERS.iter().flat_map(|make| make()).collect();
        let names: BTreeSet<&str> = families.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), families.len());
        let vectors = || families.iter().flat_map(|family| &family.vectors);
        let names: BTreeSet<&str> = vectors().map(|vector| vector.name.as_str()).collect();
        assert_eq!(names.len(), vectors().count());
    }

    #[test]
    fn a_file_that_is_changed_missing_or_foreign_is_told() {
        let mut files: Vec<(String, String)> = files().into_iter().collect();
        let tree = |files: &[(String, String)]| {
            let files: Vec<_> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
            problems(&Tree::of(&files)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(tree(&files), [""; 0]);
        let (first, last) = (files[0].0.clone(), files.pop().unwrap().0);
        files[0].1.push('\n');
        files.push((format!("{FOLDER}/mine.toml"), String::new()));
        let stale = |path| format!("{path}:1: stale: cargo xtask vectors");
        let foreign =
            format!("{FOLDER}/mine.toml:1: not made by cargo xtask vectors; it goes in hand/");
        assert_eq!(tree(&files), [stale(first), stale(last), foreign]);
    }
}
