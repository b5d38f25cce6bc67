//! Times `qed` beside `qemu-img`, and the library beside plain system calls. Owns the order of
//! things; the cases, the inputs, the timing and the arithmetic lie in files of their own.
//!
//! The rules of measuring that this keeps are in docs/performance.md.

mod case;
mod commands;
mod dirty_open;
mod in_place;
mod in_process;
mod input;
mod library;
mod report;
mod requests;
mod served;
mod stats;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::repo;
use case::{CASES, Case, Disk, Kind, Requests};
use input::Input;
use library::{DIRECT, LIBRARY, SERVED, SPACE};
use report::Row;
use stats::Summary;

/// Rounds of each case: an odd number has a median that was measured.
const ROUNDS: usize = 11;

/// Where inputs and outputs lie: `QED_BENCH_DIR`, or a folder of the build output.
fn dir() -> Result<PathBuf> {
    match env::var_os("QED_BENCH_DIR") {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => Ok(repo::target_dir()?.join("bench")),
    }
}

/// Runs the cases whose names contain one of the words; all without a word. `--list` names them,
/// `--inputs` only makes the inputs.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        words.iter().map(String::as_str).partition(|word| word.starts_with("--"));
    let library = LIBRARY.iter().chain(&DIRECT).flatten().flatten();
    let all = CASES.iter().chain(library).chain(&SPACE).chain(&SERVED);
    let cases: Vec<&'static Case> = all.filter(|case| is_chosen(case, &names)).collect();
    if cases.is_empty() {
        bail!("no case is called {}", names.join(" or "));
    }
    match options[..] {
        [] => measure(&cases),
        ["--list"] => {
            cases.iter().for_each(|case| println!("{:<32} {}", case.name, case.what));
            Ok(())
        }
        ["--inputs"] => make_inputs(&cases),
        _ => bail!("bench takes --list or --inputs, and names of cases"),
    }
}

fn is_chosen(case: &Case, names: &[&str]) -> bool {
    names.is_empty() || names.iter().any(|name| case.name.contains(name))
}

fn make_inputs(cases: &[&Case]) -> Result<()> {
    let dir = dir()?;
    for case in cases {
        match &case.kind {
            Kind::Command(command) => command.input.make(&dir)?,
            Kind::DirtyOpen(open) => open.input.make(&dir)?,
            Kind::InPlace(input) => input.make(&dir)?,
            Kind::Served(_) | Kind::Requests(Requests { disk: Disk::Full | Disk::Overlay, .. }) => {
                [Input::FullRaw, Input::FullQed]
                    .map(|input| input.make(&dir))
                    .into_iter()
                    .collect::<Result<()>>()?
            }
            Kind::InProcess(_) | Kind::Requests(_) => {}
        }
    }
    Ok(())
}

fn measure(cases: &[&'static Case]) -> Result<()> {
    make_inputs(cases)?;
    let qed = repo::build_qed()?;
    let dir = dir()?;
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let place = report::place(&dir)?;
    println!("{place}");
    let mut rows = Vec::new();
    for case in cases {
        eprintln!("{} ..", case.name);
        let row = measure_one(case, &qed, &dir).with_context(|| case.name)?;
        println!("{row}");
        rows.push(row);
    }
    report::write(&dir.join("results.json"), &place, &rows)?;
    let open = rows.iter().filter(|row| !row.has_passed()).count();
    if open > 0 {
        bail!("{open} of {} cases did not pass", rows.len());
    }
    Ok(())
}

fn measure_one(case: &'static Case, qed: &Path, dir: &Path) -> Result<Row> {
    match &case.kind {
        Kind::Command(command) => {
            let rounds = commands::time(command, qed, dir, ROUNDS)?;
            let memory = commands::peak_memory(command, qed, dir)?;
            Ok(Row::new(case, Summary::of(&rounds, case.goal)?, Some(memory)))
        }
        Kind::DirtyOpen(open) => {
            let rounds = dirty_open::time(open, qed, dir, ROUNDS)?;
            Ok(Row::new(case, Summary::of(&rounds, case.goal)?, None))
        }
        Kind::InPlace(input) => {
            let rounds = in_place::time(*input, qed, dir, ROUNDS)?;
            Ok(Row::new(case, Summary::of(&rounds, case.goal)?, None))
        }
        Kind::Served(served) => {
            let rounds = served::time(served, qed, dir, ROUNDS)?;
            Ok(Row::new(case, Summary::of(&rounds, case.goal)?, None))
        }
        Kind::Requests(requests) => {
            let rounds = requests::time(requests, qed, dir, ROUNDS)?;
            Ok(Row::new(case, Summary::of(&rounds, case.goal)?, None))
        }
        Kind::InProcess(bench) => {
            let rounds = in_process::time(bench, case.name)?;
            Ok(Row::new(case, Summary::of(&rounds, case.goal)?, None))
        }
    }
}
