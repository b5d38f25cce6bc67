//! The crash rig: runs the program of `qed-fuzz` that judges what a crash may leave, on the libraries
//! as they are and on copies of them that break one rule of the order of writes.
//!
//! Knows neither the rules nor what is judged.

mod mutants;
mod program;

use anyhow::{Context, Result, bail, ensure};

use crate::repo;
use program::{Judge, Program};

/// States that are judged unless the caller says.
const DEFAULT_STATES: u64 = 100_000;
/// States in which a mutant has to be caught.
const MUTANT_STATES: u64 = 1_000_000;
const USAGE: &str =
    "crash [--states N] [--seed S] [--mode all|MODE] [--mutant all|NAME] | crash --errors N";

/// Judges states, or sees that mutants are caught.
pub(crate) fn run(words: &[String]) -> Result<()> {
    if let [word, workloads] = words
        && word == "--errors"
    {
        return Program::of_checkout()?.errors(workloads);
    }
    let (judge, mutant) = parse(words)?;
    let work = repo::target_dir()?.join("crash");
    match mutant {
        None => Program::of_checkout()?.judge(&judge, &work),
        Some(name) => mutants::catch(&name, &judge, &work),
    }
}

fn parse(words: &[String]) -> Result<(Judge, Option<String>)> {
    let (mut states, mut seed, mut mode, mut mutant) = (None, 0, "all".to_owned(), None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word}: {USAGE}"));
        let number = |value: &String| value.parse().with_context(|| format!("{word} {value}"));
        match word.as_str() {
            "--states" => states = Some(number(value()?)?),
            "--seed" => seed = number(value()?)?,
            "--mode" => mode.clone_from(value()?),
            "--mutant" => mutant = Some(value()?.clone()),
            other => bail!("{other}: {USAGE}"),
        }
    }
    ensure!(states != Some(0), "no states: {USAGE}");
    let default = if mutant.is_some() { MUTANT_STATES } else { DEFAULT_STATES };
    Ok((Judge { states: states.unwrap_or(default), seed, mode }, mutant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Judge, Option<String>)> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_words_say_what_is_judged() {
        let judge = |states, seed, mode: &str| Judge { states, seed, mode: mode.to_owned() };
        assert_eq!(parsed("").unwrap(), (judge(DEFAULT_STATES, 0, "all"), None));
        let all = "--states 7 --seed 3 --mode compat --mutant x";
        assert_eq!(parsed(all).unwrap(), (judge(7, 3, "compat"), Some("x".to_owned())));
        assert_eq!(parsed("--mutant all").unwrap().0.states, MUTANT_STATES);
        for bad in ["--states", "--states x", "--states 0", "--what", "7"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
