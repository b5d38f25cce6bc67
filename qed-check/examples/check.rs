//! Checks one image file and prints the counters: the program that benchmarks time.

use std::error::Error;
use std::path::PathBuf;

use qed_check::{CheckOptions, check};
use qed_io::{FileOptions, FileStorage};

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: check IMAGE")?);
    let storage = FileStorage::open(&path, FileOptions::READ_ONLY)?;
    let report = check(&storage, &CheckOptions::default())?;
    println!("{:?}", report.statistics);
    println!("{} corruptions, {} leaks", report.corruptions(), report.leaks());
    for finding in &report.findings {
        println!("{}: {finding}", finding.kind.number());
    }
    Ok(())
}
