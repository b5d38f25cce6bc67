//! What a fuzz program finds: made as small as it can be, and kept under a name that says what it
//! shows.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::program::TIMEOUT_SECS;
use super::{folder, pack};
use crate::repo;

/// Time to make a finding smaller, in seconds.
const MINIMISE_SECS: u64 = 60;
/// Words of a panic that make a name.
const NAME_WORDS: usize = 8;

/// Keeps a finding of a target in `regressions`; says where, what it is, and its bytes.
pub(super) fn keep(name: &str, program: &Path, finding: &Path) -> Result<String> {
    let smaller = finding.with_extension("smaller");
    // It ends with an error once it cannot get smaller, or when the time is up.
    Command::new(program)
        .args(["-minimize_crash=1".to_owned(), format!("-max_total_time={MINIMISE_SECS}")])
        .arg(format!("-exact_artifact_path={}", smaller.display()))
        .arg(finding)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| program.display().to_string())?;
    let smallest = if smaller.exists() { &smaller } else { finding };
    let limit = format!("-timeout={TIMEOUT_SECS}");
    let said = Command::new(program).arg(limit).arg(smallest).output()?.stderr;
    let message = message_of(&String::from_utf8_lossy(&said)).to_owned();
    let input = fs::read(smallest)?;
    let kept = free_path(&folder("regressions").join(name), &name_of(&message), &input)?;
    fs::write(&kept, &input).with_context(|| kept.display().to_string())?;
    let path = kept.strip_prefix(repo::root())?.display();
    Ok(format!("{path}\n  {message}\n  input {}", pack::hex(&input)))
}

/// A path in a folder for an input of this name, behind which a number stands if there is another.
fn free_path(folder: &Path, name: &str, input: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let numbered = (2..).map(|number| folder.join(format!("{name}-{number}")));
    let mut paths = iter::once(folder.join(name)).chain(numbered);
    let is_free = |path: &PathBuf| fs::read(path).map_or(true, |there| there == input);
    paths.find(is_free).context("there are more numbers than files")
}

/// What a program says as it panics, in one line.
fn message_of(said: &str) -> &str {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
    lines.nth(1).unwrap_or("timeout or memory")
}

/// A name: the first words of a message.
fn name_of(message: &str) -> String {
    let is_part = |char: char| char.is_ascii_alphanumeric();
    let words = message.split(|char| !is_part(char)).filter(|word| !word.is_empty());
    words.take(NAME_WORDS).collect::<Vec<_>>().join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_named_by_what_the_panic_says() {
        let said = "INFO: Seed: 1\nthread 'main' panicked at src/a.rs:9:5:\n\
                    assertion `left == right` failed: findings\n  left: [1]\n";
        assert_eq!(message_of(said), "assertion `left == right` failed: findings");
        assert_eq!(name_of(message_of(said)), "assertion-left-right-failed-findings");
        assert_eq!(message_of("ALARM: working on the last unit\n"), "timeout or memory");
    }

    #[test]
    fn findings_of_one_name_are_kept_beside_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let keep = |input: &[u8]| {
            let path = free_path(folder.path(), "end", input).unwrap();
            fs::write(&path, input).unwrap();
            path.file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(
            [keep(b"1"), keep(b"2"), keep(b"1"), keep(b"3")],
            ["end", "end-2", "end", "end-3"]
        );
    }
}
