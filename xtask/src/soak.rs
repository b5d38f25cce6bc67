//! `qed serve` under a hundred connections for a long time. Runs the test that does it for a few
//! seconds, and tells it how long.

use anyhow::{Context, Result, bail};

use crate::{process, repo};

const SECONDS: u64 = 600;

/// Runs the test in a release build and shows what it measured.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let seconds = match words {
        [] => SECONDS,
        [option, seconds] if option == "--seconds" => {
            seconds.parse().with_context(|| format!("--seconds {seconds}"))?
        }
        _ => bail!("soak [--seconds N]"),
    };
    let mut test = process::cargo();
    test.args(["test", "--locked", "--release", "-p", "qed-cli", "--test", "it", "serve::soak"]);
    test.args(["--", "--nocapture"]).current_dir(repo::root());
    process::run(test.env("QED_SOAK_SECONDS", seconds.to_string()))
}
