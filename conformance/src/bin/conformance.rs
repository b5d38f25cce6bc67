//! `conformance`: holds implementations against the vectors. Owns the order of things and the exit
//! code.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::io::Write;
use std::process::ExitCode;

use conformance::{
    Arguments, Clauses, Implementation, Library, Limits, Nbd, Program, Report, USAGE, load,
    read_reports, run, to_json, to_markdown, to_table,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| matches!(&**word, "-h" | "--help")) {
        // Whoever closed the pipe has read enough.
        let _ = writeln!(std::io::stdout(), "{USAGE}");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("conformance: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match report_all(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprint!("conformance: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::from(2)
        }
    }
}

/// Runs and writes everything; returns how many vectors failed.
fn report_all(arguments: &Arguments) -> Result<u64, Box<dyn Error>> {
    let clauses = Clauses::of_specification();
    let mut vectors = load(&arguments.vectors, &clauses)?;
    if let Some(word) = &arguments.only {
        vectors.retain(|vector| vector.name.contains(word.as_str()));
    }
    if vectors.is_empty() {
        return Err("there is no such vector".into());
    }
    let implementations = implementations(arguments)?;
    let known = match &arguments.known {
        Some(path) => Some(read_reports(path)?),
        None => None,
    };
    if known.as_ref().is_some_and(|known| known.len() != implementations.len()) {
        return Err("the known report is of another number of implementations".into());
    }
    // Programs run in folders of their own.
    let folder = fs::canonicalize(&arguments.folder)
        .map_err(|error| format!("{}: {error}", arguments.folder.display()))?;
    let mut out = std::io::stdout();
    let mut reports = Vec::new();
    for (number, implementation) in implementations.iter().enumerate() {
        let mut report = run(&**implementation, &vectors, &clauses, &folder)?;
        // Names have versions in them, so that the order says which is which.
        if let Some(known) = &known {
            for (vector, field) in report.accept(&known[number], &clauses) {
                writeln!(out, "no longer fails: {vector}, {field}")?;
            }
        }
        writeln!(out, "{}", to_table(&report, &clauses))?;
        reports.push(report);
    }
    write(arguments, &reports)?;
    Ok(reports.iter().map(Report::failures).sum())
}

fn implementations(arguments: &Arguments) -> Result<Vec<Box<dyn Implementation>>, Box<dyn Error>> {
    let mut limits = Limits::default();
    limits.seconds = arguments.seconds.unwrap_or(limits.seconds);
    let mut implementations: Vec<Box<dyn Implementation>> = Vec::new();
    if arguments.library {
        implementations.push(Box::new(Library));
    }
    for path in &arguments.programs {
        implementations.push(Box::new(Program::new(path, limits)?));
    }
    if let Some(uri) = &arguments.nbd {
        implementations.push(Box::new(Nbd::new(uri, arguments.serve.as_deref(), limits)?));
    }
    Ok(implementations)
}

fn write(arguments: &Arguments, reports: &[Report]) -> std::io::Result<()> {
    let markdown = || reports.iter().map(to_markdown).collect::<Vec<String>>().join("\n");
    let files: [(_, &dyn Fn() -> String); 2] =
        [(&arguments.json, &|| to_json(reports)), (&arguments.markdown, &markdown)];
    for (path, text) in files {
        if let Some(path) = path {
            fs::write(path, text())?;
        }
    }
    Ok(())
}
