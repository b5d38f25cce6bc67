//! Tests that `./test` runs for a few seconds, run for long: `qed serve` under a hundred connections, and
//! guests whose servers die. The tests are told how long.

use anyhow::{Context, Result, bail};

use crate::{process, repo};

/// The test of a hundred connections, in a release build, for `--seconds N`, ten minutes by default.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let seconds = number(words, "--seconds", 600)?;
    let test = ["--release", "-p", "qed-cli", "--test", "it", "serve::soak"];
    tests(&test, &[("QED_SOAK_SECONDS", seconds)])
}

/// The tests with guests: each kills or moves `--times N`, 50 by default.
pub(crate) fn guests(words: &[String]) -> Result<()> {
    let times = number(words, "--times", 50)?;
    let variables = [("QED_GUEST_KILLS", times), ("QED_GUEST_MOVES", times)];
    tests(&["-p", "conformance", "--test", "guests"], &variables)
}

fn number(words: &[String], option: &str, otherwise: u64) -> Result<u64> {
    match words {
        [] => Ok(otherwise),
        [word, number] if word == option => {
            number.parse().with_context(|| format!("{option} {number}"))
        }
        _ => bail!("[{option} N]"),
    }
}

/// Runs tests, one at a time, and shows what they measured.
fn tests(words: &[&str], variables: &[(&str, u64)]) -> Result<()> {
    let mut test = process::cargo();
    test.args(["test", "--locked"]).args(words).args(["--", "--nocapture", "--test-threads", "1"]);
    let variables = variables.iter().map(|(name, value)| (name, value.to_string()));
    process::run(test.envs(variables).current_dir(repo::root()))
}
