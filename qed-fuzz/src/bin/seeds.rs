//! Makes seeds for the fuzz targets: for each branch that an input can go through, the first of a
//! sequence of random inputs that does, cut short as far as it still does.
//!
//! `seeds FOLDER` writes `FOLDER/TARGET/BRANCH`, and removes what else is in these folders.
#![forbid(unsafe_code)]

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use qed_fuzz::{Branches, TARGETS, Target, random_input};

/// Random inputs for each one that the tests try.
const MORE_THAN_TESTS: u64 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args_os().skip(1);
    let (Some(folder), None) = (words.next().map(PathBuf::from), words.next()) else {
        return Err("seeds FOLDER".into());
    };
    thread::scope(|scope| {
        let runs = TARGETS.each_ref().map(|target| (target, scope.spawn(|| seeds(target))));
        for (target, run) in runs {
            let seeds = run.join().map_err(|_| format!("target {} has a finding", target.name))?;
            println!("{}: {} branches", target.name, seeds.len());
            write(&folder.join(target.name), &seeds)?;
        }
        Ok(())
    })
}

fn seeds(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    for seed in 0..target.runs_in_tests * MORE_THAN_TESTS {
        let bytes = random_input(seed);
        for branch in branches(target, &bytes) {
            if let Entry::Vacant(vacant) = seeds.entry(branch) {
                let len = shortest(target, &bytes, vacant.key());
                vacant.insert(bytes[..len].to_vec());
            }
        }
    }
    seeds
}

/// How much of an input still goes through the branch.
fn shortest(target: &Target, bytes: &[u8], branch: &str) -> usize {
    let (mut too_short, mut enough) = (0, bytes.len());
    while too_short < enough {
        let len = usize::midpoint(too_short, enough);
        if branches(target, &bytes[..len]).contains(branch) {
            enough = len;
        } else {
            too_short = len + 1;
        }
    }
    enough
}

fn branches(target: &Target, bytes: &[u8]) -> BTreeSet<String> {
    let mut branches = Branches::seen();
    target.run(bytes, &mut branches);
    branches.into_names()
}

fn write(folder: &Path, seeds: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(folder)?,
    }
    for (branch, bytes) in seeds {
        fs::write(folder.join(branch), bytes)?;
    }
    Ok(())
}
