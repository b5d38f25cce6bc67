//! What a fuzz program finds: made as small as it can be, and kept under a name that says what it
//! shows.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::folder;
use crate::repo;

/// Time to make a finding smaller, in seconds.
const MINIMISE_SECS: u64 = 60;
/// Words of a panic that make a name.
const NAME_WORDS: usize = 8;

/// Keeps a finding of a target in `regressions`; its path in the checkout.
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
    let said = Command::new(program).arg(smallest).output()?.stderr;
    let kept = folder("regressions").join(name);
    fs::create_dir_all(&kept)?;
    let kept = kept.join(name_of(&String::from_utf8_lossy(&said)));
    fs::copy(smallest, &kept).with_context(|| kept.display().to_string())?;
    Ok(kept.strip_prefix(repo::root())?.display().to_string())
}

/// A name from what a program says as it panics: the first words after its place.
fn name_of(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
    let message = lines.nth(1).unwrap_or("timeout or memory");
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
        assert_eq!(name_of(said), "assertion-left-right-failed-findings");
        assert_eq!(name_of("ALARM: working on the last unit\n"), "timeout-or-memory");
    }
}
