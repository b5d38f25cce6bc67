//! `check IMAGE [THREADS]`: checks one image file and prints the counters and findings. The program
//! that benchmarks time.

use std::error::Error;

use qed_check::{CheckOptions, check};
use qed_io::{FileOptions, FileStorage};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: check IMAGE [THREADS]")?;
    let mut options = CheckOptions::default();
    options.threads = std::env::args().nth(2).map(|threads| threads.parse()).transpose()?;
    let storage = FileStorage::open(path, FileOptions::READ_ONLY)?;
    let report = check(&storage, &options)?;
    println!("{:?}", report.statistics);
    println!("{} corruptions, {} leaks", report.corruptions(), report.leaks());
    for finding in &report.findings {
        println!("{}: {finding}", finding.kind.number());
    }
    Ok(())
}
