//! Judges crash states until there are as many as asked for: what `cargo xtask crash` starts.
//!
//! Words: the number of states, the first seed, a mode or `all`, one in how many QEMU opens, and the
//! folder for the image of a failure. Or `errors` and a number of workloads, each request of which
//! fails in turn. Owns no rule of what is right.

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use qed_fuzz::{Campaign, ErrorCampaign, ErrorTally, Mode, Tally, crash_campaign, error_campaign};

/// So many states have some of every kind among them.
const BROAD: u64 = 100_000;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    if let [word, workloads] = &words[..]
        && word == "errors"
        && let Ok(workloads) = workloads.parse()
    {
        return errors(workloads);
    }
    let Some((campaign, folder)) = parse(&words) else {
        eprintln!("crash STATES SEED all|MODE ONE-IN-QEMU FOLDER, or: crash errors WORKLOADS");
        return ExitCode::FAILURE;
    };
    let start = Instant::now();
    match crash_campaign(&campaign) {
        Ok(tally) => finish(&campaign, &tally, start),
        Err(failure) => {
            let failure = failure.minimised();
            println!("{failure}");
            match failure.leave_in(Path::new(folder)) {
                Ok(path) => println!("the image is left in {}", path.display()),
                Err(error) => println!("{folder}: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<(Campaign, &str)> {
    let [states, seed, mode, qemu, folder] = words else { return None };
    let mode = match mode.as_str() {
        "all" => None,
        name => Some(Mode::ALL.into_iter().find(|mode| mode.to_string() == name)?),
    };
    let campaign = Campaign {
        states: states.parse().ok()?,
        seed: seed.parse().ok()?,
        mode,
        qemu: qemu.parse().ok()?,
        threads: None,
    };
    Some((campaign, folder))
}

/// Lets each request of the workloads fail.
fn errors(workloads: u64) -> ExitCode {
    match error_campaign(ErrorCampaign { workloads, one_in: 1 }) {
        Ok(ErrorTally { workloads, runs, stopped, states }) => {
            println!(
                "{workloads} workloads: {runs} runs with a request that failed once or from there on, \
                 {stopped} of them ended by a failed flush; {states} states judged"
            );
            ExitCode::SUCCESS
        }
        Err(problem) => {
            println!("wrong: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table. Where there were enough states for it, each kind of them must have occurred.
fn finish(campaign: &Campaign, tally: &Tally, start: Instant) -> ExitCode {
    println!("{tally}");
    let secs = start.elapsed().as_secs().max(1);
    let all = tally.judged + tally.again;
    println!("{secs} s: {} distinct states a second, {} in all", tally.states / secs, all / secs);
    if campaign.states < BROAD {
        return ExitCode::SUCCESS;
    }
    let modes = campaign.mode.map_or(Mode::ALL.to_vec(), |mode| vec![mode]);
    match tally.is_broad(&modes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("{problem}");
            ExitCode::FAILURE
        }
    }
}
