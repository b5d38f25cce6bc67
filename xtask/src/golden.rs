//! The images that QEMU makes, kept in `conformance/golden`: made anew in a folder of their own,
//! compared with the manifest, and written there on demand. Knows no byte of them.

mod make;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};

use crate::repo;
use make::Made;
use manifest::{File, Image, Manifest};

const FOLDER: &str = "conformance/golden";
const MANIFEST: &str = "conformance/golden/manifest.toml";
/// Takes its time, and makes the most of images that are nearly all zeros.
const COMPRESSION_LEVEL: i32 = 19;

/// Runs the commands of every image and fails if one does not come out as it is kept; with
/// `--bless` keeps what comes out.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let manifest = read()?;
    match words {
        [] => {
            let problems = problems(&manifest)?;
            if !problems.is_empty() {
                bail!("{}", problems.join("\n"));
            }
            println!("golden: {} images come out as they are kept", manifest.image.len());
            Ok(())
        }
        [word] if word == "--bless" => bless(manifest),
        _ => bail!("cargo xtask golden [--bless]"),
    }
}

fn read() -> Result<Manifest> {
    manifest::parse(&fs::read_to_string(repo::root().join(MANIFEST)).context(MANIFEST)?)
}

/// The images that the installed QEMU does not make as they are kept.
fn problems(manifest: &Manifest) -> Result<Vec<String>> {
    let installed = make::qemu_version()?;
    let mut problems = Vec::new();
    for image in &manifest.image {
        let made = make::make(image)?;
        let differing = differing(image, &made);
        if !differing.is_empty() {
            problems.push(format!(
                "{}: QEMU {installed} makes another {} than QEMU {} did",
                image.name,
                differing.join(", "),
                manifest.qemu
            ));
        }
    }
    Ok(problems)
}

/// What is not as the manifest has it.
fn differing(image: &Image, made: &Made) -> Vec<String> {
    let by_name = |files: &mut dyn Iterator<Item = &File>| -> BTreeMap<String, File> {
        files.map(|file| (file.name.clone(), file.clone())).collect()
    };
    let kept = by_name(&mut image.files.iter());
    let made_files = by_name(&mut made.files.iter().map(|(file, _)| file));
    let names: BTreeSet<&String> = kept.keys().chain(made_files.keys()).collect();
    let differs = |name: &&String| kept.get(*name) != made_files.get(*name);
    let mut differing: Vec<String> = names.into_iter().filter(differs).cloned().collect();
    if image.content != made.content {
        differing.push("virtual disk".to_owned());
    }
    differing
}

/// Makes every image and keeps it: its files, and the manifest with their digests.
fn bless(mut manifest: Manifest) -> Result<()> {
    let folder = repo::root().join(FOLDER);
    manifest.qemu = make::qemu_version()?;
    let mut stored = BTreeSet::new();
    for image in &mut manifest.image {
        let Made { files, content } = make::make(image)?;
        for (file, bytes) in &files {
            let name = stored_name(image, file);
            // What is the same is left alone, whatever another zstd would make of it.
            if !(image.files.contains(file) && folder.join(&name).exists()) {
                fs::write(folder.join(&name), zstd::encode_all(&bytes[..], COMPRESSION_LEVEL)?)?;
                println!("{name}");
            }
            stored.insert(name);
        }
        image.files = files.into_iter().map(|(file, _)| file).collect();
        image.content = content;
    }
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".zst") && !stored.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    fs::write(repo::root().join(MANIFEST), manifest::render(&manifest)?).context(MANIFEST)
}

/// The name under which a file of an image is kept.
fn stored_name(image: &Image, file: &File) -> String {
    format!("{}.{}.zst", image.name, file.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_qemu_makes_the_images_that_are_kept() {
        let problems = problems(&read().unwrap()).unwrap();
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }

    #[test]
    fn every_difference_between_what_is_made_and_kept_is_told() {
        let file = |name: &str, sha256: &str| File {
            name: name.to_owned(),
            len: 1,
            sha256: sha256.to_owned(),
        };
        let image = Image {
            name: "a".to_owned(),
            what: "b".to_owned(),
            commands: Vec::new(),
            content: None,
            files: vec![file("changed", "1"), file("gone", "2"), file("same", "3")],
        };
        let made = ["changed", "new", "same"].map(|name| (file(name, "3"), Vec::new()));
        let made = Made { files: made.into(), content: Some("4".to_owned()) };
        assert_eq!(differing(&image, &made), ["changed", "gone", "new", "virtual disk"]);
    }
}
